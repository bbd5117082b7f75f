/*
 * The common READ and WRITE, answered without Python: an optional accelerator of the native engine.
 *
 * serve() reads requests from /dev/fuse and answers those that are plain sailing: a READ whose bytes all lie
 * in known maps and in the page cache, a WRITE into rw regions. Every other request it returns to its caller,
 * and so it does whenever anything goes otherwise than planned; the caller then does the whole request
 * again, from the start. Both are idempotent, so there is one place, in Python, that knows what an error means.
 *
 * What the maps are is learned from the caller, file by file: see table.h.
 *
 * Layouts: linux/fuse.h, fuse_in_header and fuse_read_in or fuse_write_in (both 40 bytes), fuse_out_header.
 */
#include "loop.h"

#include "replies.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { OPCODE_READ = 15, OPCODE_WRITE = 16 };
enum { WRITE_CACHE = 1, WRITE_KILL_SUIDGID = 4 };
enum { SMALL = 32 << 10 };  /* bytes; the answer to a larger READ waits for no other */

struct request {
	uint32_t length, opcode;
	uint64_t unique, ino;
	uint32_t uid, gid, pid, padding;
	uint64_t fh, offset;
	uint32_t count, io_flags;
	uint64_t lock_owner;
	uint32_t flags, unused;
};

struct reply {
	uint32_t length;
	int32_t error;
	uint64_t unique;
};

struct write_reply {
	struct reply header;
	uint32_t count, padding;
};

_Static_assert(sizeof(struct request) == 80 && sizeof(struct reply) == 16 && sizeof(struct write_reply) == 24,
	       "linux/fuse.h");

enum outcome { DONE, UNKNOWN, WAITS };

/* Fill `buffer` from the page cache; the bytes, all that were asked for up to end of file, or -1. */
static int64_t fetch(const struct file *file, const struct piece *pieces, int count, char *buffer)
{
	int64_t done = 0;

	for (int index = 0; index < count; index++) {
		const struct piece *piece = &pieces[index];
		struct iovec part = {buffer + done, piece->length};
		ssize_t got = piece->length;
		struct stat found;

		if (!piece->handle)
			memset(part.iov_base, 0, part.iov_len);
		else
			got = preadv2(piece->handle->fd, &part, 1, piece->address, piece->handle->flags);
		if (got < 0)
			return -1;
		done += got;
		if (got == (ssize_t)piece->length)
			continue;
		/* short: for want of pages, or at the end of a file that is all of one source; a device's has no size here */
		if (!file->whole || fstat(piece->handle->fd, &found) || !S_ISREG(found.st_mode) ||
		    found.st_size > piece->address + got)
			return -1;
	}
	return done;
}

static bool store(const struct piece *pieces, int count, const char *data)
{
	for (int index = 0; index < count; index++) {
		const struct piece *piece = &pieces[index];

		if (pwrite(piece->handle->fd, data, piece->length, piece->address) != (ssize_t)piece->length)
			return false;
		data += piece->length;
	}
	return true;
}

static enum outcome do_read(struct table *table, const struct request *request, struct replies *replies)
{
	struct piece pieces[PIECES];
	char *place = replies_place(replies, sizeof(struct reply) + request->count);
	struct file *file;
	int count;
	int64_t done;

	if (!place)
		return UNKNOWN;
	count = table_hold(table, request->ino, request->offset, request->count, false, pieces, &file);
	if (count < 0)
		return UNKNOWN;
	done = fetch(file, pieces, count, place + sizeof(struct reply));
	if (done >= 0) {
		*(struct reply *)place = (struct reply){sizeof(struct reply) + done, 0, request->unique};
		table_count(table, file, false, done);
		replies_add(replies, sizeof(struct reply) + done);
	}
	table_release(table, file, pieces, count);
	return done >= 0 ? DONE : WAITS;
}

static void safe(struct turns *turns, int64_t since)
{
	atomic_compare_exchange_strong(&turns->since, &since, 0);
}

/* The leader begins what may stall, at *since, until safe(); false when nobody would watch. */
static bool risk(struct turns *turns, int64_t *since)
{
	struct timespec now;
	int64_t none = 0;

	clock_gettime(CLOCK_MONOTONIC, &now);
	*since = now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
	/* whoever is watched already stays watched */
	if (!atomic_compare_exchange_strong(&turns->since, &none, *since))
		return false;
	/* only now: a watchman who falls asleep says so first, and looks at `since` after */
	if (turns->awake)
		return true;
	safe(turns, *since);
	return false;
}

static enum outcome do_write(struct table *table, const struct request *request, struct replies *replies,
			     struct turns *turns)
{
	struct piece pieces[PIECES];
	struct file *file;
	char *place;
	int count;
	int64_t since;
	bool done;

	/* pages of a mapping, set-id bits and O_APPEND have rules of their own */
	if (request->io_flags & (WRITE_CACHE | WRITE_KILL_SUIDGID) || request->flags & O_APPEND)
		return UNKNOWN;
	/* nobody's answer waits for a disk that another one writes to */
	if (!replies_send(replies) || !(place = replies_place(replies, sizeof(struct write_reply))))
		return UNKNOWN;
	count = table_hold(table, request->ino, request->offset, request->count, true, pieces, &file);
	if (count < 0)
		return UNKNOWN;
	if (!risk(turns, &since)) {
		table_release(table, file, pieces, count);
		return UNKNOWN;
	}
	/* forgotten meanwhile: another file may show these bytes by now, and Python drops what the kernel holds of it */
	done = store(pieces, count, (const char *)(request + 1)) && table_count(table, file, true, request->count);
	if (done) {
		*(struct write_reply *)place = (struct write_reply){{sizeof(struct write_reply), 0, request->unique},
								    request->count, 0};
		replies_add(replies, sizeof(struct write_reply));
	}
	table_release(table, file, pieces, count);
	safe(turns, since);
	return done ? DONE : UNKNOWN;
}

static enum outcome do_request(struct table *table, const struct request *request, ssize_t size,
			       struct replies *replies, struct turns *turns)
{
	if (size < (ssize_t)sizeof *request || request->length != size)
		return UNKNOWN;
	if (request->opcode == OPCODE_READ && size == sizeof *request)
		return do_read(table, request, replies);
	if (request->opcode == OPCODE_WRITE && size - sizeof *request == request->count)
		return do_write(table, request, replies, turns);
	return UNKNOWN;
}

enum ended loop_serve(struct table *table, int device, struct span buffer, struct span reply, struct turns *turns,
		      int64_t turn, ssize_t *size)
{
	const struct request *request = buffer.start;
	struct replies replies = {.device = device, .start = reply.start, .room = reply.length};
	struct pollfd next = {device, POLLIN, 0};
	bool together = false, waited = true;

	while (turns->turn == turn) {
		enum outcome outcome;

		*size = read(device, buffer.start, buffer.length);
		if (*size < 0 && errno == ENOENT) /* interrupted while it was read */
			continue;
		if (*size < 0 && errno != EAGAIN)
			return errno == ENODEV ? UNMOUNTED : FAILED;
		if (*size < 0) {
			together = replies.count > 1;
			waited = !replies.count;
			if (waited ? poll(&next, 1, -1) < 0 : !replies_send(&replies))
				return FAILED;
			continue;
		}
		outcome = do_request(table, request, *size, &replies, turns);
		if (outcome == DONE && together && request->opcode == OPCODE_READ && request->count <= SMALL)
			continue;
		if (!replies_send(&replies))
			return FAILED;
		if (outcome != DONE)
			return outcome == WAITS ? WAITING : REQUEST;
		/* more came while this one was answered: the next ones may wait for each other */
		together = together || !waited;
		waited = false;
	}
	return replies_send(&replies) ? TURNED : FAILED;
}
