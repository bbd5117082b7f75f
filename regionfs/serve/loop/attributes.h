/* LOOKUP and GETATTR, as Python last answered them. */
#ifndef REGIONFS_ATTRIBUTES_H
#define REGIONFS_ATTRIBUTES_H

#include "replies.h"
#include "requests.h"
#include "table.h"
#include "turns.h"

/* A whole request of `size` bytes. */
enum outcome do_lookup(struct table *table, const struct request *request, size_t size, struct replies *replies,
		       struct turns *turns);
enum outcome do_getattr(struct table *table, const struct request *request, struct replies *replies,
			struct turns *turns);

#endif
