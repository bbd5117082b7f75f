/*
 * The common READ and WRITE, answered without Python: an optional accelerator of the native engine.
 *
 * serve() answers those requests that are plain sailing: a READ whose bytes all lie in known maps and in the page cache,
 * a WRITE into rw regions, an OPEN that finds the sources unchanged. Every other one it returns to its caller, and so it
 * does whenever anything goes otherwise than planned; the caller then does all of it again. All are idempotent, so there
 * is one place, in Python, that knows what an error means. The maps are learned from the caller: see table.h.
 *
 * Layouts: linux/fuse.h, fuse_in_header and fuse_read_in or fuse_write_in (both 40 bytes), fuse_out_header.
 */
#include "loop.h"

#include "replies.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { OPCODE_OPEN = 14, OPCODE_READ = 15, OPCODE_WRITE = 16, OPCODE_RELEASE = 18 };
enum { FOPEN_KEEP_CACHE = 2 };
enum { WRITE_CACHE = 1, WRITE_KILL_SUIDGID = 4 };
enum { SMALL = 32 << 10 };  /* bytes; the answer to a larger READ waits for no other */
enum { LARGE = 64 << 10, SHOWN = 8 };  /* bytes of a READ that is worth mappings; of how many pieces at most */

struct request {
	uint32_t length, opcode;
	uint64_t unique, ino;
	uint32_t uid, gid, pid, padding;
	uint64_t fh, offset;
	uint32_t count, io_flags;
	uint64_t lock_owner;
	uint32_t flags, unused;
};

struct open_request {
	char header[40];
	uint32_t flags, open_flags;
};

enum { RELEASE_SIZE = 64 };  /* fuse_in_header, fuse_release_in */

struct reply {
	uint32_t length;
	int32_t error;
	uint64_t unique;
};

struct write_reply {
	struct reply header;
	uint32_t count, padding;
};

struct open_reply {
	struct reply header;
	uint64_t handle;
	uint32_t flags;
	int32_t backing_id;
};

_Static_assert(sizeof(struct open_request) == 48 && sizeof(struct open_reply) == 32, "linux/fuse.h");
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

/* Answer a READ out of mapped sources; false: it was not answered, and nothing was done. */
static bool show(struct table *table, const struct request *request, struct file *file, const struct piece *pieces,
		 int count, struct replies *replies)
{
	struct reply header = {sizeof header + request->count, 0, request->unique};
	struct iovec parts[SHOWN + 1] = {{&header, sizeof header}};
	struct window *windows[SHOWN];
	int held = 0;

	for (; held < count; held++) {
		const struct piece *piece = &pieces[held];
		char *start = window_hold(table, piece->handle, piece->address, piece->length, &windows[held]);

		if (!start)
			break;
		parts[held + 1] = (struct iovec){start, piece->length};
	}
	if (held == count) { /* counted first: who has the bytes may ask for the counters */
		table_count(table, file, false, request->count);
		replies_give(replies, parts, count + 1);
	}
	for (int index = 0; index < held; index++)
		window_release(table, windows[index]);
	return held == count;
}

/*
 * Whether a READ is worth windows. Only of files of fixed size: where a source shrinks just now the answer is EIO, but
 * a file that is all of one source just ends sooner.
 */
static bool showable(const struct request *request, const struct file *file, const struct piece *pieces, int count)
{
	size_t left = request->count;

	if (file->whole || count > SHOWN || request->count < LARGE)
		return false;
	for (int index = 0; index < count; index++) {
		if (!pieces[index].handle || !pieces[index].handle->mappable)
			return false;
		left -= pieces[index].length;
	}
	return left == 0;
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

static int64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

static void safe(struct turns *turns, int64_t since)
{
	atomic_compare_exchange_strong(&turns->since, &since, 0);
}

/* The leader begins what may stall, at *since, until safe(); false when nobody would watch. */
static bool risk(struct turns *turns, int64_t *since)
{
	int64_t none = 0;

	*since = now();
	/* whoever is watched already stays watched */
	if (!atomic_compare_exchange_strong(&turns->since, &none, *since))
		return false;
	/* only now: a watchman who falls asleep says so first, and looks at `since` after */
	if (turns->awake)
		return true;
	safe(turns, *since);
	return false;
}

static enum outcome do_read(struct table *table, const struct request *request, struct replies *replies,
			    struct turns *turns)
{
	struct piece pieces[PIECES];
	char *place = replies_place(replies, sizeof(struct reply) + request->count);
	struct file *file;
	bool shown = false;
	int count;
	int64_t done = 0, since;

	if (!place)
		return UNKNOWN;
	count = table_hold(table, request->ino, request->offset, request->count, false, pieces, &file);
	if (count < 0)
		return UNKNOWN;
	if (showable(request, file, pieces, count)) {
		if (!turns->awake) { /* Python calls the watchman */
			table_release(table, file, pieces, count);
			return UNKNOWN;
		}
		/* pages may go away after a look at them */
		if (risk(turns, &since)) {
			shown = show(table, request, file, pieces, count, replies);
			safe(turns, since);
		}
	}
	if (!shown && (done = fetch(file, pieces, count, place + sizeof(struct reply))) >= 0) {
		*(struct reply *)place = (struct reply){sizeof(struct reply) + done, 0, request->unique};
		table_count(table, file, false, done);
		replies_add(replies, sizeof(struct reply) + done);
	}
	table_release(table, file, pieces, count);
	return done >= 0 ? DONE : WAITS;
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

static bool same_time(struct timespec one, struct timespec other)
{
	return one.tv_sec == other.tv_sec && one.tv_nsec == other.tv_nsec;
}

/* As SourceFacts.hold: then who looked closer would find nothing else. */
static bool unchanged(const struct source *source)
{
	struct stat found;

	return stat(source->path, &found) == 0 && found.st_ino == source->inode &&
	       same_time(found.st_ctim, source->ctime) && same_time(found.st_mtim, source->mtime) &&
	       found.st_size == source->size && found.st_dev == source->device && found.st_blocks == source->blocks &&
	       found.st_mode == source->mode && found.st_uid == source->uid && found.st_gid == source->gid;
}

/* An OPEN for reading: what the page cache holds is still true when the sources are what they were. */
static enum outcome do_open(struct table *table, const struct request *request, struct replies *replies,
			    struct turns *turns)
{
	const struct open_request *body = (const struct open_request *)request;
	struct sources *sources;
	bool same;
	int64_t since;
	char *place;

	if ((body->flags & O_ACCMODE) != O_RDONLY || body->flags & (O_DIRECT | O_TRUNC))
		return UNKNOWN;
	/* nobody's answer waits for another one's disk */
	if (!replies_send(replies) || !(place = replies_place(replies, sizeof(struct open_reply))))
		return UNKNOWN;
	sources = table_hold_sources(table, request->ino);
	if (!sources)
		return UNKNOWN;
	same = risk(turns, &since);
	if (same) {
		for (Py_ssize_t index = 0; same && index < sources->count; index++)
			same = unchanged(&sources->source[index]);
		safe(turns, since);
	}
	same = same && table_count_open(table, request->ino, sources);
	table_release_sources(table, sources);
	if (!same)
		return UNKNOWN;
	*(struct open_reply *)place = (struct open_reply){{sizeof(struct open_reply), 0, request->unique}, 0,
							  FOPEN_KEEP_CACHE, 0};
	replies_add(replies, sizeof(struct open_reply));
	return DONE;
}

/* A RELEASE of a file whose handles Python need not know. */
static enum outcome do_release(struct table *table, const struct request *request, struct replies *replies)
{
	struct sources *sources = table_hold_sources(table, request->ino);
	char *place;

	if (!sources)
		return UNKNOWN;
	table_release_sources(table, sources);
	if (!(place = replies_place(replies, sizeof(struct reply))))
		return UNKNOWN;
	*(struct reply *)place = (struct reply){sizeof(struct reply), 0, request->unique};
	replies_add(replies, sizeof(struct reply));
	return DONE;
}

static enum outcome do_request(struct table *table, const struct request *request, ssize_t size,
			       struct replies *replies, struct turns *turns)
{
	if (size < (ssize_t)sizeof(struct open_request) || request->length != size)
		return UNKNOWN;
	if (request->opcode == OPCODE_OPEN && size == sizeof(struct open_request))
		return do_open(table, request, replies, turns);
	if (request->opcode == OPCODE_RELEASE && size == RELEASE_SIZE)
		return do_release(table, request, replies);
	if (size < (ssize_t)sizeof *request)
		return UNKNOWN;
	if (request->opcode == OPCODE_READ && size == sizeof *request)
		return do_read(table, request, replies, turns);
	if (request->opcode == OPCODE_WRITE && size - sizeof *request == request->count)
		return do_write(table, request, replies, turns);
	return UNKNOWN;
}

/*
 * Wait for a request: awake for up to `spin` ns, then asleep. Who sleeps on another core than the client is woken
 * late, so this pays where requests come one by one; where they come seldom it is left out. Negative with errno.
 */
static int wait_for_request(struct table *table, int device, int64_t spin, bool *often)
{
	struct pollfd next = {device, POLLIN, 0};
	int64_t begin = spin ? now() : 0;
	int ready;

	while (spin && *often && now() - begin < spin) {
		if (poll(&next, 1, 0))
			return 0;
		sched_yield();  /* to the client, should it share this core */
	}
	ready = poll(&next, 1, table->idle);
	if (ready == 0) {
		windows_close(table);
		ready = poll(&next, 1, -1);
	}
	*often = spin && now() - begin < 2 * spin;
	return ready;
}

enum ended loop_serve(struct table *table, int device, struct span buffer, struct span reply, struct turns *turns,
		      int64_t turn, ssize_t *size)
{
	const struct request *request = buffer.start;
	struct replies replies = {.device = device, .start = reply.start, .room = reply.length};
	bool together = false, many = false, waited = true, often = true;

	while (turns->turn == turn) {
		enum outcome outcome;

		*size = read(device, buffer.start, buffer.length);
		if (*size < 0 && errno == ENOENT) /* interrupted while it was read */
			continue;
		if (*size < 0 && errno != EAGAIN)
			return errno == ENODEV ? UNMOUNTED : FAILED;
		if (*size < 0) {
			together = replies.count > 1;
			many = replies.count ? together : many;
			waited = !replies.count;
			if (waited ? wait_for_request(table, device, many ? 0 : table->spin, &often) < 0
				   : !replies_send(&replies))
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
