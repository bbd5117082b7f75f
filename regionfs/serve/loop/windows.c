/* Sources in memory: see windows.h. */
#include "windows.h"

#include "table.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { PAGE = 4096 };       /* bytes; a larger page of the machine's is a multiple of it */
enum { XFS_MAGIC = 0x58465342 };
enum { MAPPED = WINDOW + LONGEST };  /* so that a piece which begins in a window ends in it */

/* File systems that keep one copy of a file's bytes, for reads and mappings alike, and ask no server about it. */
static bool local(int fd)
{
	struct statfs found;

	if (fstatfs(fd, &found))
		return false;
	switch ((unsigned long)found.f_type) {
	case EXT4_SUPER_MAGIC:
	case XFS_MAGIC:
	case BTRFS_SUPER_MAGIC:
	case F2FS_SUPER_MAGIC:
	case TMPFS_MAGIC:
		return true;
	}
	return false;
}

/* mincore(2) calls every page of a file present that the caller could neither write nor owns. */
static bool told_the_truth(int fd, const struct stat *found)
{
	char path[32];

	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	return found->st_uid == geteuid() || faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) == 0;
}

bool windows_suit(int fd)
{
	struct stat found;

	return fstat(fd, &found) == 0 && S_ISREG(found.st_mode) && local(fd) && told_the_truth(fd, &found);
}

static bool present(char *start, size_t length)
{
	unsigned char pages[LONGEST / PAGE + 2];
	char *first = (char *)((uintptr_t)start & ~(uintptr_t)(PAGE - 1));
	size_t size = start + length - first, count = (size + PAGE - 1) / PAGE;

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

/* With the table's lock. */
static struct window *find(struct table *table, const struct handle *handle, int64_t number)
{
	uintptr_t place = ((uintptr_t)handle / sizeof *handle + number) % WINDOWS;
	struct window *window = &table->windows[place];

	if (window->handle == handle && window->number == number) {
		if (!window->start)
			window->start = mmap(NULL, MAPPED, PROT_READ, MAP_SHARED, handle->fd, number * WINDOW);
		if (window->start != MAP_FAILED)
			return window;
		window->start = NULL;
	} else if (!window->users) {
		drop(window);
		window->handle = handle;
		window->number = number;
	}
	return NULL;
}

char *window_hold(struct table *table, const struct handle *handle, int64_t address, size_t length,
		  struct window **held)
{
	struct window *window;
	struct stat found;
	char *start;

	/* a page that the file's end lies in shows zeros behind it */
	if (!handle->mappable || length > LONGEST || fstat(handle->fd, &found) ||
	    found.st_size < address + (int64_t)length)
		return NULL;
	pthread_mutex_lock(&table->lock);
	window = find(table, handle, address / WINDOW);
	if (window)
		window->users++;
	pthread_mutex_unlock(&table->lock);
	if (!window)
		return NULL;
	start = window->start + address % WINDOW;
	if (present(start, length)) {
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
