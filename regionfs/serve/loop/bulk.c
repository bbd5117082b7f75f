/* Large WRITEs through a pipe: see bulk.h. */
#include "bulk.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

/*
 * A pipe that holds `room` bytes in pages of which the header has one to itself, and the data may begin and end inside
 * one. An ordinary user's has 1 MiB at most (pipe(7)).
 */
static bool make_pipe(struct pipe_ends *made, size_t room)
{
	long page = sysconf(_SC_PAGESIZE);
	int ends[2];

	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK))
		return false;
	*made = (struct pipe_ends){ends[0], ends[1]};
	if (fcntl(made->into, F_SETPIPE_SZ, (int)((room / page + 2) * page)) > 0)
		return true;
	close(made->from);
	close(made->into);
	return false;
}

static void close_pipe(struct pipe_ends ends)
{
	close(ends.from);
	close(ends.into);
}

static bool make(struct bulk *bulk, size_t room)
{
	bulk->nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
	if (bulk->nowhere < 0)
		return false;
	if (make_pipe(&bulk->message, room)) {
		if (make_pipe(&bulk->kept, room))
			return true;
		close_pipe(bulk->message);
	}
	close(bulk->nowhere);
	return false;
}

static void unmake(struct bulk *bulk)
{
	if (bulk->made) {
		close_pipe(bulk->message);
		close_pipe(bulk->kept);
		close(bulk->nowhere);
	}
	bulk->inside = bulk->again = 0;
	bulk->whole = bulk->made = false;
}

struct bulk *bulk_take(struct bulk *bulk, size_t room)
{
	if (bulk->refused || atomic_flag_test_and_set(&bulk->taken))
		return NULL;
	if (bulk->made || (bulk->made = make(bulk, room)))
		return bulk;
	bulk->refused = true;
	atomic_flag_clear(&bulk->taken);
	return NULL;
}

void bulk_return(struct bulk *bulk)
{
	if (!bulk)
		return;
	bulk_empty(bulk);
	if (bulk->refused)
		unmake(bulk);
	atomic_flag_clear(&bulk->taken);
}

void bulk_close(struct bulk *bulk)
{
	if (atomic_flag_test_and_set(&bulk->taken))
		return;
	unmake(bulk);
	bulk->refused = false;
	atomic_flag_clear(&bulk->taken);
}

ssize_t bulk_receive(struct bulk *bulk, int device, char *buffer, size_t room, size_t header)
{
	ssize_t size = splice(device, NULL, bulk->message.into, NULL, room, 0), got;

	/* it does not splice, or not into so small a pipe; no room for a list of pages */
	if (size < 0 && (errno == EINVAL || errno == ENOMEM))
		bulk->refused = true;
	if (size <= 0)
		return size;
	bulk->inside = size;
	for (size_t have = 0; have < header && bulk->inside; have += got, bulk->inside -= got) {
		size_t want = header - have < bulk->inside ? header - have : bulk->inside;

		got = read(bulk->message.from, buffer + have, want);
		if (got <= 0)
			return errno = EIO, -1;
	}
	return size;
}

bool bulk_keep(struct bulk *bulk)
{
	ssize_t done = tee(bulk->message.from, bulk->kept.into, bulk->inside, SPLICE_F_NONBLOCK);

	bulk->again = done > 0 ? done : 0;
	return bulk->whole = bulk->again == bulk->inside;
}

bool bulk_store(struct bulk *bulk, int fd, int64_t address, size_t length)
{
	loff_t place = address;

	while (length) {
		ssize_t done = splice(bulk->message.from, NULL, fd, &place, length, SPLICE_F_NONBLOCK);

		if (done <= 0) {
			if (done < 0 && errno == EINVAL) /* of this source; it will not be asked in vain each time */
				bulk->refused = true;
			return false;
		}
		length -= done;
		bulk->inside -= done;
	}
	return true;
}

bool bulk_fetch(struct bulk *bulk, char *buffer)
{
	int from = bulk->whole ? bulk->kept.from : bulk->message.from;
	size_t *left = bulk->whole ? &bulk->again : &bulk->inside;

	while (*left) {
		ssize_t got = read(from, buffer, *left);

		if (got <= 0)
			return errno = EIO, false;
		buffer += got;
		*left -= got;
	}
	return true;
}

static bool empty(struct pipe_ends ends, int nowhere, size_t *left)
{
	while (*left) {
		ssize_t done = splice(ends.from, NULL, nowhere, NULL, *left, SPLICE_F_NONBLOCK);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return false;
		*left -= done;
	}
	return true;
}

void bulk_empty(struct bulk *bulk)
{
	bulk->whole = false;
	if (empty(bulk->message, bulk->nowhere, &bulk->inside) && empty(bulk->kept, bulk->nowhere, &bulk->again))
		return;
	bulk->refused = true;
	unmake(bulk);
}
