/*
 * OPEN and RELEASE of files whose sources are what they were when Python answered last.
 *
 * In userspace the page cache is kept, and nobody counts handles. In passthrough the inode's entry in the ledger says
 * on which backing id it is open, and how often: see backing.py for the kernel's rules. The entry is looked at first,
 * then the source is, and registered if need be, which may take time and locks nothing. Then table_count_handle()
 * changes the entry, if the inode is still the loop's. Else what was registered is given back, and Python answers.
 */
#include "opens.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* A backing id for a source, which is unchanged; negative when it is another file by now, or the kernel refuses. */
static int register_source(int device, const struct source *source)
{
	/* what took the path's place since may be a FIFO or a terminal */
	int fd = open(source->path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC), id = -1;
	struct backing_map map = {.fd = fd};
	struct stat found;

	if (fd < 0)
		return -1;
	if (fstat(fd, &found) == 0 && source_is(source, &found))
		id = ioctl(device, BACKING_OPEN, &map);
	close(fd);
	return id;
}

static void unregister(int device, int id)
{
	uint32_t gone = id;

	if (id > 0)
		ioctl(device, BACKING_CLOSE, &gone);
}

/* What an OPEN is answered with, counted; 0 when it was not. */
static int open_backed(struct table *table, const struct request *request, int device, struct sources *sources,
		       int64_t since)
{
	int registered = 0, used = 0;
	struct timespec atime;

	if (!sources_unchanged(sources, &atime))
		return 0;
	if (!table_handles(table, sources))
		registered = register_source(device, &sources->source[0]);
	if (registered >= 0)
		used = table_count_handle(table, request->ino, sources, request->unique, registered, since);
	if (used != registered) /* another thread was faster, or Python took the inode back */
		unregister(device, registered);
	return used;
}

static enum outcome answer_open(struct request *request, struct replies *replies, uint32_t flags, int backing_id)
{
	struct open_reply reply = {{sizeof reply, 0, request->unique}, 0, flags, backing_id};
	char *place;

	if (!backing_id) {
		place = replies_place(replies, sizeof reply);
		*(struct open_reply *)place = reply;
		replies_add(replies, sizeof reply);
		return DONE;
	}
	if (write(replies->device, &reply, sizeof reply) == sizeof reply)
		return DONE;
	request->unique = 0;
	return UNKNOWN;
}

enum outcome do_open(struct table *table, struct request *request, struct replies *replies, struct turns *turns)
{
	const struct open_request *body = (const struct open_request *)request;
	struct sources *sources;
	struct timespec atime;
	bool backed, done;
	int64_t since;
	int id = 0;

	if ((body->flags & O_ACCMODE) != O_RDONLY || body->flags & O_TRUNC)
		return UNKNOWN;
	/* nobody's answer waits for another one's disk */
	if (!replies_send(replies) || !replies_place(replies, sizeof(struct open_reply)))
		return UNKNOWN;
	sources = table_hold_sources(table, request->ino);
	if (!sources)
		return UNKNOWN;
	backed = sources->slot;
	done = !(backed ? request->unique & UNIQUE_RESEND : body->flags & O_DIRECT) && risk(turns, &since);
	if (done) {
		if (backed)
			done = (id = open_backed(table, request, replies->device, sources, since)) > 0;
		else
			done = sources_unchanged(sources, &atime) && table_count_open(table, request->ino, sources);
		safe(turns, since);
	}
	table_release_sources(table, sources);
	return done ? answer_open(request, replies, backed ? FOPEN_PASSTHROUGH : FOPEN_KEEP_CACHE, id) : UNKNOWN;
}

/* A handle less; its backing id goes with the last one. False when it was not counted. */
static bool release_backed(struct table *table, const struct request *request, int device, struct sources *sources,
			   struct turns *turns)
{
	int64_t since;
	int last;

	/* to let go of a file may take time */
	if (request->unique & UNIQUE_RESEND || !risk(turns, &since))
		return false;
	last = table_uncount_handle(table, request->ino, sources, request->unique);
	unregister(device, last);
	safe(turns, since);
	return last >= 0;
}

enum outcome do_release(struct table *table, const struct request *request, struct replies *replies,
			struct turns *turns)
{
	struct sources *sources = table_hold_sources(table, request->ino);
	char *place = NULL;
	bool done;

	if (!sources)
		return UNKNOWN;
	/* nobody's answer waits until a file is closed, and there is room for this one before it is counted */
	done = (!sources->slot || replies_send(replies)) && (place = replies_place(replies, sizeof(struct reply)));
	if (done && sources->slot)
		done = release_backed(table, request, replies->device, sources, turns);
	table_release_sources(table, sources);
	if (!done)
		return UNKNOWN;
	*(struct reply *)place = (struct reply){sizeof(struct reply), 0, request->unique};
	replies_add(replies, sizeof(struct reply));
	return DONE;
}
