/* Requests that change something, while they are under way: what a task says, and in which order, is told in underway.py. */
#ifndef REGIONFS_UNDERWAY_H
#define REGIONFS_UNDERWAY_H

#include <stdbool.h>
#include <stdint.h>

enum { OVERTAKEN = 9 };  /* ranges of a task that can be told apart */

/* One of them, in 8-byte words. A process may die between any two stores, so the compiler keeps their order. */
struct task {
	volatile uint64_t unique;             /* 0: nobody's */
	volatile uint64_t result;             /* what it is answered with, or 0 */
	volatile uint64_t ino, start, end;
	volatile uint64_t overtaken;          /* ranges below; more than there is room for: not all are known */
	volatile uint64_t range[OVERTAKEN][2];
	volatile uint64_t before[8];          /* Python's; the last one tells that the others hold */
};

_Static_assert(sizeof(struct task) == 32 * sizeof(uint64_t), "underway.py");

/* Zeroed: nothing is written down. */
struct underway {
	struct task *tasks;
	uint64_t count, used;  /* how many there are; those from here on are nobody's */
};

/* Whoever calls these excludes the others. A task is given back by a store of 0 to `unique`. */

/* The task of a request: the one that was begun for it before, or a new one; NULL when there is none left. */
struct task *underway_begin(struct underway *underway, uint64_t unique, uint64_t ino, uint64_t start, uint64_t end);
/*
 * [start, end) of an inode is what `task` made it: requests that are under way there shall not be done again. False when
 * it has to wait for one of them, which has no room for that; only where it `waits`.
 */
bool underway_overtake(struct underway *underway, const struct task *task, uint64_t ino, uint64_t start, uint64_t end,
		       bool waits);

/* What a request is answered with, once that is certain: done, with so many bytes. */
static inline uint64_t underway_done(uint64_t count)
{
	return count + 1;
}

#endif
