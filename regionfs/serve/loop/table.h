/* What the loop knows: maps of files and descriptors of sources. */
#ifndef REGIONFS_TABLE_H
#define REGIONFS_TABLE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>

#include "bulk.h"
#include "ledger.h"
#include "requests.h"
#include "underway.h"
#include "windows.h"

enum { HOLE = -1, ERROR = -2 };          /* targets, as in regions.py; those below are blobs */
enum { PIECES = 512, BUCKETS = 1 << 14 };  /* pieces of a request at most; buckets of each hash table */
enum { COLUMNS = 5 };                    /* of regions.Columns */
enum { HANDLES = 1 << 12 };              /* buckets of descriptors */

/* What a descriptor of a source is a descriptor of. */
struct opened {
	uint64_t inode;
	uint32_t major, minor;  /* of the device */
	int status;             /* F_GETFL */
};

/* A descriptor of a source that was opened once, for all files that show it; the last user closes it. */
struct handle {
	struct handle *next, **link;  /* among those of a bucket; then among those to close */
	struct opened opened;
	int fd;
	int flags;              /* of preadv2: what keeps a read from waiting for a disk */
	_Atomic bool mappable;  /* see windows_suit() */
	long users;
};

/* What was served of a file; bytes. */
struct counts {
	uint64_t opens, backed, reads, read_bytes, writes, write_bytes;  /* opens in userspace; in passthrough */
};

/* What a source was when the page cache was filled from it. */
struct source {
	char *path;
	uint64_t device, inode, mode, uid, gid;
	int64_t size, blocks;  /* bytes; 512-byte units */
	struct timespec mtime, ctime;
};

/* The sources of a file that may be looked up and opened without asking Python; the last user frees it. */
struct sources {
	struct sources *next;     /* among the names of a bucket */
	long users;
	uint64_t ino, parent;
	char *name;               /* in the directory `parent`; NULL where Python looks it up */
	struct entry_out entry;   /* what stat(2) shows; nodeid 0 where Python tells */
	bool live;                /* the access time is the source's own, and changes */
	volatile uint64_t *slot;  /* of a file in passthrough, in the ledger: where its handles are counted; else NULL */
	int64_t made;             /* ns; when the source was looked at for the backing file in use */
	Py_ssize_t count;
	struct source source[];
};

/* A composite file. Its map never changes; freed by who holds the interpreter's lock, for the objects are Python's. */
struct file {
	struct file *next;
	uint64_t ino;
	long users;             /* requests under way */
	bool whole, writable;   /* all of one source, of whatever size; takes WRITEs */
	bool forgotten;
	int64_t size, count;
	Py_buffer buffers[COLUMNS];
	const int64_t *starts, *ends, *shifts;
	const int32_t *targets;
	const uint8_t *rw;
	Py_ssize_t handles;
	struct handle **handle; /* by target; NULL where none is known yet */
	struct sources *sources; /* NULL where Python answers OPEN */
	PyObject *counters;     /* where Python keeps what was counted */
	struct counts counts;
};

/* What was counted of one file, and for whom; the reference is the owner's. */
struct row {
	PyObject *counters;
	struct counts counts;
};

/* A part of a request's range. */
struct piece {
	struct handle *handle;  /* NULL for zeros */
	int64_t address;
	size_t length;
};

/* One lock for all of it, never held during I/O; what I/O is under way uses is counted. */
struct table {
	pthread_mutex_t lock;
	long epoch;             /* how often everything was forgotten */
	int64_t spin;           /* ns that the loop stays awake for the next request */
	int idle;               /* ms without a request after which nothing stays mapped */
	struct handle *handles[HANDLES];
	long open, bound;       /* of them */
	int hand;               /* the bucket of files that lose theirs next */
	long asked;             /* how often a window was wanted */
	Py_buffer shared;       /* the words of the ledger */
	struct ledger ledger;
	Py_buffer tasks;        /* the words of what is under way */
	struct underway underway;
	struct window windows[WINDOWS];
	struct bulk bulk;
	struct file *buckets[BUCKETS + 1];  /* the last one holds what was forgotten, until it is harvested */
	struct sources *names[BUCKETS];
};

/* By whoever serves; no lock of Python's is needed. */

/* The pieces of a range to read, and their file and descriptors kept from going away; -1 for what Python shall do. */
int table_hold(struct table *table, const struct request *request, struct piece *pieces, struct file **held);
/* The same of a range to write, which is under way from now on: as *task, or NULL where that is not written down. */
int table_hold_write(struct table *table, const struct request *request, struct piece *pieces, struct file **held,
		     struct task **task);
void table_release(struct table *table, struct file *file, const struct piece *pieces, int count);
/* Bytes were read. */
void table_count(struct table *table, struct file *file, uint64_t bytes);
/* A range was written, and what it is answered with is certain; false when the file was forgotten meanwhile. */
bool table_written(struct table *table, struct file *file, const struct request *request, struct task *task);

/* The sources of a file that may be opened, kept from going away; NULL for what Python shall do. */
struct sources *table_hold_sources(struct table *table, uint64_t ino);
/* The same by the file's name. */
struct sources *table_hold_name(struct table *table, uint64_t parent, const char *name);
void table_release_sources(struct table *table, struct sources *sources);
/* Whether all are what they were, by stat(2). The last one's access time is what it is now. */
bool sources_unchanged(const struct sources *sources, struct timespec *atime);
bool source_is(const struct source *source, const struct stat *found);
/* What stat(2) shows of them; false when Python tells by now. */
bool table_show(struct table *table, const struct sources *sources, struct entry_out *entry);
/* Count an OPEN; false when the file was forgotten meanwhile. */
bool table_count_open(struct table *table, uint64_t ino, const struct sources *sources);

/* Of a file in passthrough that was held: its handles now. */
uint64_t table_handles(struct table *table, const struct sources *sources);
/*
 * Write down that a request made one more handle, and count an OPEN: on the backing id in use, or on `registered` when
 * there is none, which was begun at `since`. The id, or 0 when the file is not the loop's any more.
 */
int table_count_handle(struct table *table, uint64_t ino, struct sources *sources, uint64_t unique, int registered,
		       int64_t since);
/* Write down that a request was one less; the backing id that nobody uses any more, or 0, or -1 as above. */
int table_uncount_handle(struct table *table, uint64_t ino, const struct sources *sources, uint64_t unique);

/* A task of a request that Python does; NULL when there is none left. */
struct task *table_begin(struct table *table, uint64_t unique, uint64_t ino, uint64_t start, uint64_t end);
/* As underway_overtake(). */
bool table_overtake(struct table *table, const struct task *task, uint64_t ino, uint64_t start, uint64_t end,
		     bool waits);

/* Inside the table. */

/* With the lock; NULL when it is not known. */
struct file *table_find(struct table *table, uint64_t ino);
/* With the lock: a file has no sources any more. To be freed when it returns true. */
bool table_drop_sources(struct table *table, struct file *file);
void table_free_sources(struct sources *sources);
/* With the lock: a user less. What nobody uses any more goes to `unused`, for table_close_all() without it. */
void table_let_go(struct table *table, struct handle *handle, struct handle **unused);
void table_drop_handles(struct table *table, struct file *file, struct handle **unused);
/* Whether it was opened for writing, too. */
bool handle_writes(const struct handle *handle);
/* May take time: a network's file system writes back what is dirty. */
void table_close_all(struct handle *unused);

/* With the interpreter's lock: what a file refers to is Python's. */

/* What was counted since this was asked last; the number of *rows, which the caller frees, or -1 without memory. */
Py_ssize_t table_harvest(struct table *table, struct row **rows);
void table_free_file(struct file *file);
/* False when it is known already, or everything was forgotten since `epoch`. */
bool table_add(struct table *table, long epoch, struct file *file);
bool table_knows(struct table *table, uint64_t ino);
/* Read and write `target` of a file through a duplicate of fd. Other files lose theirs when it would be one too many. */
void table_use(struct table *table, long epoch, uint64_t ino, Py_ssize_t target, int fd);
/* As the loop does, of an inode that is not its own. */
void table_write(struct table *table, uint64_t unique, volatile uint64_t *slot, const struct entry *entry);
/* Answer OPENs of a file that is known as long as its sources are these, which the table takes and frees. */
void table_open(struct table *table, long epoch, struct sources *sources);
/* Answer no LOOKUP or GETATTR of a file any more, until table_open(). */
void table_hide(struct table *table, uint64_t ino);
/* Answer no OPEN or RELEASE of a file in passthrough any more; its `made`, or 0 when none was answered. */
int64_t table_take_back(struct table *table, uint64_t ino);
/* Forget all files, and close what no request under way uses; lets go of the interpreter's lock meanwhile. */
void table_clear(struct table *table);

#endif
