/*
 * LOOKUP and GETATTR of files whose sources are what they were when Python answered last.
 *
 * An open that finds them changed hides the file first, and makes the kernel forget what it was told: of an answer that
 * is under way just then it keeps nothing (attr_version in fs/fuse/inode.c). See Told in tree.py.
 */
#include "attributes.h"

/* Only an answer: nothing is counted, so nothing is to be undone where it is not taken. */
static enum outcome answer(struct table *table, const struct request *request, struct sources *sources,
			   struct replies *replies, struct turns *turns)
{
	bool entry = request->opcode == OPCODE_LOOKUP;
	uint32_t length = entry ? sizeof(struct entry_reply) : sizeof(struct attr_reply);
	struct timespec atime;
	struct entry_out shown;
	char *place = NULL;
	int64_t since;
	bool done;

	/* nobody's answer waits for another one's disk */
	done = replies_send(replies) && (place = replies_place(replies, length)) && risk(turns, &since);
	if (done) {
		done = sources_unchanged(sources, &atime) && table_show(table, sources, &shown);
		safe(turns, since);
	}
	if (done && sources->live) {
		shown.attr.atime = atime.tv_sec;
		shown.attr.atimensec = atime.tv_nsec;
	}
	table_release_sources(table, sources);
	if (!done)
		return UNKNOWN;
	if (entry)
		*(struct entry_reply *)place = (struct entry_reply){{length, 0, request->unique}, shown};
	else
		*(struct attr_reply *)place = (struct attr_reply){{length, 0, request->unique}, shown.attr_valid,
								  shown.attr_valid_nsec, 0, shown.attr};
	replies_add(replies, length);
	return DONE;
}

enum outcome do_lookup(struct table *table, const struct request *request, size_t size, struct replies *replies,
		       struct turns *turns)
{
	const char *name = (const char *)request + HEADER_SIZE;
	struct sources *sources = NULL;

	/* one name with the only NUL at its end, and no extensions */
	if (!request->padding && strnlen(name, size - HEADER_SIZE) == size - HEADER_SIZE - 1)
		sources = table_hold_name(table, request->ino, name);
	return sources ? answer(table, request, sources, replies, turns) : UNKNOWN;
}

enum outcome do_getattr(struct table *table, const struct request *request, struct replies *replies,
			struct turns *turns)
{
	struct sources *sources = table_hold_sources(table, request->ino);

	return sources ? answer(table, request, sources, replies, turns) : UNKNOWN;
}
