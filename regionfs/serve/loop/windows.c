/* Sources in memory: see windows.h. */
#include "windows.h"

#include "table.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LEAST_PAGE = 4096 };          /* bytes */
enum { MAPPED = WINDOW + LONGEST };  /* so that a piece which begins in a window ends in it */

/*
 * A file system on a block device, or in memory (only there files have seals): reads and mappings find the same pages,
 * and no server is asked what they are.
 */
static bool local(int fd, const struct statx *found)
{
	return found->stx_dev_major != 0 || fcntl(fd, F_GET_SEALS) >= 0;
}

/* mincore(2) calls every page of a file present that the caller could neither write nor owns. */
static bool told_the_truth(int fd, const struct statx *found)
{
	char path[32];

	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	return found->stx_uid == geteuid() || faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) == 0;
}

/* Who bounds the address space wants to see it used for something else. */
static bool unbounded(void)
{
	struct rlimit limit;

	return getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur == RLIM_INFINITY;
}

bool windows_suit(int fd)
{
	struct statx found;

	/* a file server that hangs is not asked */
	return statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE | STATX_UID, &found) == 0 &&
	       S_ISREG(found.stx_mode) && local(fd, &found) && told_the_truth(fd, &found) && unbounded();
}

static bool present(char *start, size_t length)
{
	unsigned char pages[LONGEST / LEAST_PAGE + 2];
	size_t page_size = sysconf(_SC_PAGESIZE);
	char *first = (char *)((uintptr_t)start & ~(uintptr_t)(page_size - 1));
	size_t size = start + length - first, count = (size + page_size - 1) / page_size;

	if (mincore(first, size, pages))
		return false;
	for (size_t page = 0; page < count; page++)
		if (!(pages[page] & 1))
			return false;
	return true;
}

static void drop(struct window *window)
{
	if (window->start)
		munmap(window->start, MAPPED);
	*window = (struct window){0};
}

/* The window, else a place for it that nobody uses, longest not asked for; NULL when there is none. With the lock. */
static struct window *find(struct table *table, const struct handle *handle, int64_t number)
{
	struct window *room = NULL;

	for (int place = 0; place < WINDOWS; place++) {
		struct window *window = &table->windows[place];

		if (window->handle == handle && window->number == number)
			return window;
		if (!window->users && (!room || !window->handle || (room->handle && window->asked < room->asked)))
			room = window;
	}
	return room;
}

/* One more user of the window, if it was asked for before; *mapped tells whether it has been mapped. */
static struct window *take(struct table *table, const struct handle *handle, int64_t number, bool *mapped)
{
	struct window *window;
	bool known;

	pthread_mutex_lock(&table->lock);
	window = find(table, handle, number);
	known = window && window->handle == handle && window->number == number;
	if (window && !known) {
		drop(window);
		window->handle = handle;
		window->number = number;
	}
	if (window)
		window->asked = ++table->asked;
	*mapped = known && window->start;
	known = known && (*mapped || !window->users); /* else another thread is about to map it */
	if (known)
		window->users++;
	pthread_mutex_unlock(&table->lock);
	return known ? window : NULL;
}

char *window_hold(struct table *table, struct handle *handle, int64_t address, size_t length, struct window **held)
{
	struct window *window;
	struct stat found;
	bool mapped;
	char *start;

	/* a page that the file's end lies in shows zeros behind it */
	if (!handle->mappable || length > LONGEST || fstat(handle->fd, &found) ||
	    found.st_size < address + (int64_t)length)
		return NULL;
	window = take(table, handle, address / WINDOW, &mapped);
	if (!window)
		return NULL;
	if (!mapped) { /* without the lock: it may update the file's atime */
		start = mmap(NULL, MAPPED, PROT_READ, MAP_SHARED, handle->fd, window->number * WINDOW);
		pthread_mutex_lock(&table->lock);
		handle->mappable = start != MAP_FAILED;
		window->start = handle->mappable ? start : NULL;
		pthread_mutex_unlock(&table->lock);
	}
	start = window->start ? window->start + address % WINDOW : NULL;
	if (start && present(start, length)) {
		*held = window;
		return start;
	}
	window_release(table, window);
	return NULL;
}

void window_release(struct table *table, struct window *window)
{
	pthread_mutex_lock(&table->lock);
	window->users--;
	pthread_mutex_unlock(&table->lock);
}

void windows_forget(struct table *table, const struct handle *handle)
{
	for (int place = 0; place < WINDOWS; place++)
		if (table->windows[place].handle == handle)
			drop(&table->windows[place]);
}

void windows_close(struct table *table)
{
	pthread_mutex_lock(&table->lock);
	for (int place = 0; place < WINDOWS; place++)
		if (!table->windows[place].users)
			drop(&table->windows[place]);
	pthread_mutex_unlock(&table->lock);
}
