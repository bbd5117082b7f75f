/* Descriptors of sources: one for all files that show a source, and never too many. */
#include "table.h"

#include <fcntl.h>
#include <linux/kcmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef F_DUPFD_QUERY
#define F_DUPFD_QUERY 1027 /* linux/fcntl.h */
#endif

void table_let_go(struct table *table, struct handle *handle, struct handle **unused)
{
	if (--handle->users == 0) {
		table->open--;
		windows_forget(table, handle);
		if (handle->next)
			handle->next->link = handle->link;
		*handle->link = handle->next;
		handle->next = *unused;
		*unused = handle;
	}
}

void table_close_all(struct handle *unused)
{
	while (unused) {
		struct handle *handle = unused;

		unused = handle->next;
		close(handle->fd);
		free(handle);
	}
}

static bool identify(int fd, struct opened *opened)
{
	struct statx found;

	/* a file server that hangs is not asked */
	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_INO, &found))
		return false;
	*opened = (struct opened){found.stx_ino, found.stx_dev_major, found.stx_dev_minor, fcntl(fd, F_GETFL)};
	return true;
}

/*
 * Whether two descriptors are of one open file. What a file system tells is no proof: there are some of FUSE that give
 * two files one number, and what is written to one would land in the other.
 */
static bool one_open_file(int one, int other)
{
	int same = fcntl(one, F_DUPFD_QUERY, other);

	if (same < 0) /* before Linux 6.10 */
		same = syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, one, other) == 0;
	return same == 1;
}

/* The place in the chain of a bucket that points to the handle of this open file, or to NULL. */
static struct handle **find_handle(struct table *table, const struct opened *opened, int fd)
{
	struct handle **at = &table->handles[(opened->inode ^ opened->minor) % HANDLES];

	while (*at && ((*at)->opened.inode != opened->inode || (*at)->opened.major != opened->major ||
		       (*at)->opened.minor != opened->minor || !one_open_file((*at)->fd, fd)))
		at = &(*at)->next;
	return at;
}

bool handle_writes(const struct handle *handle)
{
	return (handle->opened.status & O_ACCMODE) != O_RDONLY;
}

/* In no bucket and without users yet; NULL when there is no descriptor or memory left. */
static struct handle *make_handle(int fd, const struct opened *opened)
{
	struct handle *handle = calloc(1, sizeof *handle);

	if (!handle)
		return NULL;
	handle->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (handle->fd < 0) {
		free(handle);
		return NULL;
	}
	handle->opened = *opened;
	/* only what lies in memory has seals: it has no disk to wait for, and knows no RWF_NOWAIT */
	handle->flags = fcntl(fd, F_GET_SEALS) < 0 ? RWF_NOWAIT : 0;
	handle->mappable = windows_suit(fd);
	return handle;
}

void table_drop_handles(struct table *table, struct file *file, struct handle **unused)
{
	for (Py_ssize_t target = 0; target < file->handles; target++)
		if (file->handle[target])
			table_let_go(table, file->handle[target], unused);
	memset(file->handle, 0, file->handles * sizeof *file->handle);
}

/* Have room for one handle more, and for some others soon, at the expense of other files than this one. */
static void make_room(struct table *table, const struct file *file, struct handle **unused)
{
	long enough = table->bound - 1 - table->bound / 8;

	if (table->open < table->bound)
		return;
	for (int passed = 0; table->open > enough && passed < BUCKETS; passed++) {
		for (struct file *other = table->buckets[table->hand]; other; other = other->next)
			if (other != file)
				table_drop_handles(table, other, unused);
		table->hand = (table->hand + 1) % BUCKETS;
	}
}

/* With the lock: the file, if it can use a handle: it has none yet, or one that cannot write as this one can. */
static struct file *wants(struct table *table, long epoch, uint64_t ino, Py_ssize_t target,
			  const struct opened *opened)
{
	struct file *file = epoch == table->epoch ? table_find(table, ino) : NULL;

	if (!file || target < 0 || target >= file->handles)
		return NULL;
	if (file->handle[target] && ((opened->status & O_ACCMODE) == O_RDONLY || handle_writes(file->handle[target])))
		return NULL;
	return file;
}

void table_use(struct table *table, long epoch, uint64_t ino, Py_ssize_t target, int fd)
{
	struct handle *unused = NULL, *made = NULL, **at;
	struct opened opened;
	struct file *file;
	bool known;

	if (!identify(fd, &opened))
		return;
	pthread_mutex_lock(&table->lock);
	known = !wants(table, epoch, ino, target, &opened) || *find_handle(table, &opened, fd);
	pthread_mutex_unlock(&table->lock);
	if (!known)  /* without the lock: it asks who may write the source */
		made = make_handle(fd, &opened);
	pthread_mutex_lock(&table->lock);
	file = wants(table, epoch, ino, target, &opened);
	if (file && made && !*find_handle(table, &opened, fd)) {
		make_room(table, file, &unused);
		if (table->open < table->bound) {
			made->link = find_handle(table, &opened, fd);
			*made->link = made;
			table->open++;
			made = NULL;
		}
	}
	at = find_handle(table, &opened, fd);
	if (file && *at) {
		struct handle *before = file->handle[target];

		(*at)->users++;
		file->handle[target] = *at;
		if (before)
			table_let_go(table, before, &unused);
	}
	pthread_mutex_unlock(&table->lock);
	if (made) {
		made->next = unused;
		unused = made;
	}
	Py_BEGIN_ALLOW_THREADS
	table_close_all(unused);
	Py_END_ALLOW_THREADS
}
