/*
 * The common requests, answered without Python: an optional accelerator of the native engine.
 *
 * serve() answers those requests that are plain sailing: a READ whose bytes all lie in known maps and in the page cache,
 * a WRITE into rw regions, a LOOKUP, GETATTR or OPEN that finds the sources unchanged. Every other one it returns to its
 * caller, and so it does whenever anything goes otherwise than planned; the caller then does all of it again. What was
 * done of it by then may be done twice, so there is one place, in Python, that knows what an error means. The maps are
 * learned from the caller: see table.h.
 */
#include "loop.h"

#include "attributes.h"
#include "bulk.h"
#include "opens.h"
#include "replies.h"
#include "requests.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { SMALL = 32 << 10 };  /* bytes; the answer to a larger READ waits for no other */
enum { LARGE = 64 << 10, SHOWN = 8 };  /* bytes of a READ that is worth mappings; of how many pieces at most */

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
		table_count(table, file, request->count);
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

/* To the sources, what lies at `data` or in pipes. */
static bool store(const struct piece *pieces, int count, const char *data, struct bulk *bulk)
{
	for (int index = 0; index < count; index++) {
		const struct piece *piece = &pieces[index];

		if (bulk ? !bulk_store(bulk, piece->handle->fd, piece->address, piece->length)
			 : pwrite(piece->handle->fd, data, piece->length, piece->address) != (ssize_t)piece->length)
			return false;
		data += piece->length;
	}
	return true;
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
	count = table_hold(table, request, pieces, &file);
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
		table_count(table, file, done);
		replies_add(replies, sizeof(struct reply) + done);
	}
	table_release(table, file, pieces, count);
	return done >= 0 ? DONE : WAITS;
}

/* `bulk`: where the data is, unless it comes after the request. */
static enum outcome do_write(struct table *table, const struct request *request, struct bulk *bulk,
			     struct replies *replies, struct turns *turns)
{
	struct piece pieces[PIECES];
	struct file *file;
	struct task *task;
	char *place;
	int count;
	int64_t since;
	bool done;

	/* pages of a mapping, set-id bits, O_APPEND and what another server may have done have rules of their own */
	if (request->io_flags & (WRITE_CACHE | WRITE_KILL_SUIDGID) || request->flags & O_APPEND ||
	    request->unique & UNIQUE_RESEND)
		return UNKNOWN;
	/* nobody's answer waits for a disk that another one writes to */
	if (!replies_send(replies) || !(place = replies_place(replies, sizeof(struct write_reply))))
		return UNKNOWN;
	count = table_hold_write(table, request, pieces, &file, &task);
	if (count < 0)
		return UNKNOWN;
	if (!risk(turns, &since)) {
		table_release(table, file, pieces, count);
		return UNKNOWN;
	}
	/* forgotten meanwhile: another file may show these bytes by now, and Python drops what the kernel holds of it */
	done = (!bulk || bulk_keep(bulk)) && store(pieces, count, (const char *)(request + 1), bulk) &&
	       table_written(table, file, request, task);
	if (done) {
		*(struct write_reply *)place = (struct write_reply){{sizeof(struct write_reply), 0, request->unique},
								    request->count, 0};
		replies_add(replies, sizeof(struct write_reply));
	}
	table_release(table, file, pieces, count);
	safe(turns, since);
	if (done && replies_send(replies) && task)
		task->unique = 0;
	return done ? DONE : UNKNOWN;
}

static enum outcome do_request(struct table *table, struct request *request, ssize_t size, struct bulk *bulk,
			       struct replies *replies, struct turns *turns)
{
	if (size < HEADER_SIZE || request->length != size)
		return UNKNOWN;
	if (request->opcode == OPCODE_LOOKUP)
		return do_lookup(table, request, size, replies, turns);
	if (request->opcode == OPCODE_GETATTR && size == GETATTR_SIZE)
		return do_getattr(table, request, replies, turns);
	if (request->opcode == OPCODE_OPEN && size == sizeof(struct open_request))
		return do_open(table, request, replies, turns);
	if (request->opcode == OPCODE_RELEASE && size == RELEASE_SIZE)
		return do_release(table, request, replies, turns);
	if (size < (ssize_t)sizeof *request)
		return UNKNOWN;
	if (request->opcode == OPCODE_READ && size == sizeof *request)
		return do_read(table, request, replies, turns);
	if (request->opcode == OPCODE_WRITE && size - sizeof *request == request->count)
		return do_write(table, request, bulk, replies, turns);
	return UNKNOWN;
}

/*
 * Wait for a request: awake for up to `spin` ns, then asleep. Who sleeps on another core than the client is woken
 * late, so this pays where requests come one by one; where they come seldom it is left out. Negative with errno.
 */
static int wait_for_request(struct table *table, int device, int64_t spin, bool *often, struct bulk **bulk)
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
		bulk_return(*bulk);
		*bulk = NULL;
		bulk_close(&table->bulk);
		ready = poll(&next, 1, -1);
	}
	*often = spin && now() - begin < 2 * spin;
	return ready;
}

/* As read(2) of a message; of one that lies in `bulk` then only its beginning is in the buffer. Negative with errno. */
static ssize_t receive(struct bulk *bulk, int device, struct span buffer)
{
	if (bulk)
		bulk_empty(bulk);
	if (bulk && !bulk->refused) {
		ssize_t size = bulk_receive(bulk, device, buffer.start, buffer.length, sizeof(struct request));

		if (!bulk->refused)
			return size;
	}
	return read(device, buffer.start, buffer.length);
}

/* Whether a message is a WRITE whose data is worth a pipe: it stays there, and another one is expected. */
static bool is_bulk(const struct request *request, ssize_t size)
{
	return size > (ssize_t)sizeof *request && request->opcode == OPCODE_WRITE && request->count >= LEAST_BULK &&
	       !(request->flags & O_DIRECT);
}

/* One message of *size bytes; false with errno when its data got lost. */
static bool answer(struct table *table, struct span buffer, ssize_t size, struct bulk *bulk, struct replies *replies,
		   struct turns *turns, enum outcome *outcome)
{
	struct request *request = buffer.start;
	char *data = (char *)(request + 1);

	if (bulk && !is_bulk(request, size) && !bulk_fetch(bulk, data))
		return false;
	*outcome = do_request(table, request, size, bulk && bulk->inside ? bulk : NULL, replies, turns);
	return *outcome == DONE || !bulk || bulk_fetch(bulk, data);
}

static enum ended serve(struct table *table, int device, struct span buffer, struct span reply, struct turns *turns,
			int64_t turn, ssize_t *size, struct bulk **bulk)
{
	struct request *request = buffer.start;
	struct replies replies = {.device = device, .start = reply.start, .room = reply.length};
	bool together = false, many = false, waited = true, often = true;

	while (turns->turn == turn) {
		enum outcome outcome;

		*size = receive(*bulk, device, buffer);
		if (*size < 0 && errno == ENOENT) /* interrupted while it was read */
			continue;
		if (*size < 0 && errno != EAGAIN)
			return errno == ENODEV ? UNMOUNTED : FAILED;
		if (*size < 0) {
			together = replies.count > 1;
			many = replies.count ? together : many;
			waited = !replies.count;
			if (waited ? wait_for_request(table, device, many ? 0 : table->spin, &often, bulk) < 0
				   : !replies_send(&replies))
				return FAILED;
			continue;
		}
		if (!answer(table, buffer, *size, *bulk, &replies, turns, &outcome))
			return FAILED;
		if (outcome == DONE && together && request->opcode == OPCODE_READ && request->count <= SMALL)
			continue;
		if (!replies_send(&replies))
			return FAILED;
		if (outcome != DONE)
			return outcome == WAITS ? WAITING : REQUEST;
		if (!is_bulk(request, *size)) {
			bulk_return(*bulk);
			*bulk = NULL;
		} else if (!*bulk) {
			*bulk = bulk_take(&table->bulk, buffer.length);
		}
		/* more came while this one was answered: the next ones may wait for each other */
		together = together || !waited;
		waited = false;
	}
	return replies_send(&replies) ? TURNED : FAILED;
}

enum ended loop_serve(struct table *table, int device, struct span buffer, struct span reply, struct turns *turns,
		      int64_t turn, ssize_t *size)
{
	struct bulk *bulk = NULL;
	enum ended ended = serve(table, device, buffer, reply, turns, turn, size, &bulk);
	int error = errno;

	bulk_return(bulk);
	errno = error;
	return ended;
}
