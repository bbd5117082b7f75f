/* Answers on their way to the kernel: small ones wait for each other. */
#ifndef REGIONFS_REPLIES_H
#define REGIONFS_REPLIES_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

enum { BATCH = 16 };  /* answers that wait at most */

/* Begin with {device, start, room}, where `start` is aligned to 8 bytes. */
struct replies {
	int device;
	char *start;
	size_t room, used;
	int failed;            /* errno of an answer that could not be given */
	unsigned count;
	struct iovec parts[BATCH];
};

/* Where an answer of at most `size` bytes can be written, after sending what is in the way; NULL: it cannot. */
char *replies_place(struct replies *replies, size_t size);
/* The answer at replies_place() is complete. */
void replies_add(struct replies *replies, size_t size);
/* Send an answer that lies in `parts`; the next replies_send() says whether the device failed. */
void replies_give(struct replies *replies, const struct iovec *parts, int count);
/*
 * Send what waits, by one system call where liburing is there: each write(2) that wakes its caller on this very
 * core ends with a switch to it, one io_uring_enter(2) for all of them with one. The device must not block.
 * False with errno when an answer could not be given, now or before.
 */
bool replies_send(struct replies *replies);

#endif
