/* Answers on their way to the kernel: see replies.h. */
#include "replies.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

/* ENOENT: nobody waits for it any more; ENODEV: the mount has ended. */
static bool given(int error)
{
	return error == 0 || error == ENOENT || error == ENODEV;
}

#ifdef HAVE_LIBURING
#include <liburing.h>

static pthread_key_t ring_key;
static pthread_once_t ring_once = PTHREAD_ONCE_INIT;
static bool ring_refused;  /* this kernel, or whoever confines us, allows no rings */

static void end_ring(void *ring)
{
	io_uring_queue_exit(ring);
	free(ring);
}

static void make_ring_key(void)
{
	ring_refused = pthread_key_create(&ring_key, end_ring) != 0;
}

/* The calling thread's ring; NULL where there can be none. */
static struct io_uring *own_ring(void)
{
	struct io_uring *ring;

	pthread_once(&ring_once, make_ring_key);
	if (ring_refused)
		return NULL;
	ring = pthread_getspecific(ring_key);
	if (ring || !(ring = malloc(sizeof *ring)))
		return ring;
	if (io_uring_queue_init(BATCH, ring, 0)) {
		ring_refused = true;
		free(ring);
		return NULL;
	}
	pthread_setspecific(ring_key, ring);
	return ring;
}

/* Send all at once; a bit for each that was given to the kernel. */
static uint32_t send_together(const struct replies *replies)
{
	struct io_uring *ring = own_ring();
	struct io_uring_cqe *cqe;
	uint32_t sent = 0;
	unsigned head, seen = 0;
	int submitted;

	if (!ring)
		return 0;
	for (unsigned index = 0; index < replies->count; index++) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

		io_uring_prep_write(sqe, replies->device, replies->parts[index].iov_base,
				    replies->parts[index].iov_len, 0);
		sqe->user_data = index;
	}
	submitted = io_uring_submit_and_wait(ring, replies->count);
	io_uring_for_each_cqe(ring, head, cqe) {
		if (given(cqe->res < 0 ? -cqe->res : 0))
			sent |= UINT32_C(1) << cqe->user_data;
		seen++;
	}
	io_uring_cq_advance(ring, seen);
	if (submitted != (int)replies->count || seen != replies->count) { /* nothing of it may be sent later */
		pthread_setspecific(ring_key, NULL);
		end_ring(ring);
	}
	return sent;
}
#else
static uint32_t send_together(const struct replies *replies)
{
	(void)replies;
	return 0;
}
#endif

char *replies_place(struct replies *replies, size_t size)
{
	if (size > replies->room)
		return NULL;
	if ((replies->count == BATCH || size > replies->room - replies->used) && !replies_send(replies))
		return NULL;
	return replies->start + replies->used;
}

void replies_add(struct replies *replies, size_t size)
{
	size_t rounded = (size + 7) & ~(size_t)7;

	replies->parts[replies->count++] = (struct iovec){replies->start + replies->used, size};
	replies->used += rounded < replies->room - replies->used ? rounded : replies->room - replies->used;
}

void replies_give(struct replies *replies, const struct iovec *parts, int count)
{
	if (!replies_send(replies) || writev(replies->device, parts, count) >= 0)
		return;
	/* else it could not copy: pages went away, or there is no memory for tables. Then its caller got EIO */
	if (errno == EINVAL || errno == EPERM || errno == EBADF)
		replies->failed = errno;
}

bool replies_send(struct replies *replies)
{
	uint32_t sent = replies->count > 1 ? send_together(replies) : 0;

	for (unsigned index = 0; index < replies->count; index++) {
		const struct iovec *part = &replies->parts[index];

		if (!(sent & UINT32_C(1) << index) && write(replies->device, part->iov_base, part->iov_len) < 0 &&
		    !given(errno))
			replies->failed = errno;
	}
	replies->count = 0;
	replies->used = 0;
	errno = replies->failed;
	return replies->failed == 0;
}
