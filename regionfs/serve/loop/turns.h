/* Where the relay's threads tell each other who leads, and that something may stall. */
#ifndef REGIONFS_TURNS_H
#define REGIONFS_TURNS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Relay.turns in relay.py. */
struct turns {
	_Atomic int64_t turn;   /* how often the leader has changed */
	_Atomic int64_t since;  /* when it began something that may stall, ns, or 0 */
	_Atomic int64_t awake;  /* whether somebody watches that */
};

/* Nanoseconds, as time.monotonic_ns(). */
int64_t now(void);
/* The leader begins what may stall, at *since, until safe(); false when nobody would watch. */
bool risk(struct turns *turns, int64_t *since);
void safe(struct turns *turns, int64_t since);

#endif
