/* The loop around /dev/fuse. */
#ifndef REGIONFS_LOOP_H
#define REGIONFS_LOOP_H

#include <sys/types.h>

#include "table.h"
#include "turns.h"

struct span {
	void *start;
	size_t length;
};

enum { LEAST_BUFFER = 80, LEAST_REPLY = 24 };  /* bytes that the spans must have */

enum ended {
	REQUEST,    /* one for Python, of *size bytes */
	WAITING,    /* the same, and it is a READ that would wait for a disk */
	TURNED,     /* another thread leads */
	UNMOUNTED,
	FAILED,     /* errno */
};

/* Answer requests of `device` until there is a reason to stop; `turn` is the caller's turn to lead. */
enum ended loop_serve(struct table *table, int device, struct span buffer, struct span reply, struct turns *turns,
		      int64_t turn, ssize_t *size);

#endif
