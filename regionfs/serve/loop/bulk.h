/*
 * Large WRITEs through a pipe: their bytes are copied once, from the kernel's pages of the file to the source's.
 *
 * read(2) would copy them into this process, and pwrite(2) out of it. splice(2) moves a whole message into a pipe, for
 * the data only references to its pages; the header is read out of it, and the rest spliced into the source. What has
 * gone there has left the pipe, so before that tee(2) keeps a second reference to all of it: whoever has to do the WRITE
 * again, from the start, finds its bytes. Only WRITEs through the page cache gain, for of those with O_DIRECT the kernel
 * makes copies. One who serves has the pipes at a time, any other one reads.
 *
 * Nothing is stored unless all is kept. Nothing is received while something is left inside: where the pipes cannot be
 * emptied they are closed. Pipes count against their user (pipe(7), pipe-user-pages-soft), so an idle loop has none.
 */
#ifndef REGIONFS_BULK_H
#define REGIONFS_BULK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { LEAST_BULK = 32 << 10 };  /* bytes of a WRITE after which the next message is worth a pipe */

struct pipe_ends {
	int from, into;
};

/* Zeroed: there are no pipes yet. */
struct bulk {
	atomic_flag taken;
	bool made;             /* there are pipes, which hold any message */
	_Atomic bool refused;  /* none are to be had or used until bulk_close() */
	struct pipe_ends message, kept;
	int nowhere;           /* /dev/null */
	size_t inside, again;  /* bytes of the message in `message`, and in `kept` */
	bool whole;            /* all of it is in `kept` */
};

/* The pipes, for messages of up to `room` bytes, until bulk_return(); NULL when there are none to be had. */
struct bulk *bulk_take(struct bulk *bulk, size_t room);
/* Also of NULL; what is left inside is thrown away. */
void bulk_return(struct bulk *bulk);
/* There are no pipes until they are taken again, unless somebody has them. */
void bulk_close(struct bulk *bulk);

/*
 * As read(2) of a message, but only its first `header` bytes come into `buffer`. Where it turns out that it cannot be
 * done that way nothing is received, and `refused` set.
 */
ssize_t bulk_receive(struct bulk *bulk, int device, char *buffer, size_t room, size_t header);
/* Have all that is inside found again by bulk_fetch(), whatever is stored; false: it was not, and nothing was done. */
bool bulk_keep(struct bulk *bulk);
/* The next `length` bytes go to `address` of a source. False, with some of them done, as pwrite(2) would fail. */
bool bulk_store(struct bulk *bulk, int fd, int64_t address, size_t length);
/* All that came after the header, into `buffer`; false with errno. */
bool bulk_fetch(struct bulk *bulk, char *buffer);
/* Throw away what is inside. */
void bulk_empty(struct bulk *bulk);

#endif
