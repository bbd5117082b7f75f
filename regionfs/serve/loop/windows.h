/*
 * Sources in memory: parts of them mapped, for answers that the kernel copies straight out of the page cache.
 *
 * A large answer would be copied twice, by preadv(2) and by write(2), and the second copy is done by the kernel as
 * well. So it gets the address of the pages. This process never touches them: where the file has shrunk meanwhile,
 * write(2) fails with EFAULT, and nobody gets a SIGBUS.
 */
#ifndef REGIONFS_WINDOWS_H
#define REGIONFS_WINDOWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WINDOW = 16 << 20 };                /* bytes from the start of one to the next */
enum { WINDOWS = 32 };                     /* open at most */
enum { LONGEST = 1 << 20 };                /* bytes of a piece that a window shows */

struct handle;
struct table;

struct window {
	const struct handle *handle;  /* NULL: none yet */
	int64_t number;               /* it begins at number * WINDOW of the source */
	char *start;                  /* NULL until it was asked for twice */
	long users, asked;            /* now; when last, as a number that grows */
};

/* Whether pieces of a descriptor may be mapped: read(2) would find the very same pages, and mincore(2) is true. */
bool windows_suit(int fd);
/*
 * Where [address, address + length) of a source is in memory, until window_release(); NULL when not all of it is in
 * the page cache, or it was read for the first time.
 */
char *window_hold(struct table *table, struct handle *handle, int64_t address, size_t length, struct window **held);
void window_release(struct table *table, struct window *window);
/* Unmap what nobody uses. */
void windows_close(struct table *table);
/* With the table's lock: the handle, which nobody uses, is about to be closed. */
void windows_forget(struct table *table, const struct handle *handle);

#endif
