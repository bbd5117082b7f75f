/* OPEN and RELEASE. */
#ifndef REGIONFS_OPENS_H
#define REGIONFS_OPENS_H

#include "replies.h"
#include "requests.h"
#include "table.h"
#include "turns.h"

/*
 * An OPEN for reading that finds the sources unchanged. UNKNOWN with `unique` 0: it was counted, and the kernel did not
 * take the answer any more.
 */
enum outcome do_open(struct table *table, struct request *request, struct replies *replies, struct turns *turns);
/* A RELEASE of a file whose handles Python need not know. */
enum outcome do_release(struct table *table, const struct request *request, struct replies *replies,
			struct turns *turns);

#endif
