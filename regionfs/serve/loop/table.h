/* What the loop knows: maps of files and descriptors of sources. */
#ifndef REGIONFS_TABLE_H
#define REGIONFS_TABLE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "windows.h"

enum { HOLE = -1, ERROR = -2 };          /* targets, as in regions.py; those below are blobs */
enum { PIECES = 512, BUCKETS = 1 << 14 };  /* pieces of a request at most; buckets of a table */
enum { COLUMNS = 5 };                    /* of regions.Columns */

/* A source's descriptor; the last user closes it. */
struct handle {
	struct handle *next;    /* among those to close */
	int fd;
	int flags;              /* of preadv2: what keeps a read from waiting for a disk */
	_Atomic bool mappable;  /* see windows_suit() */
	long users;
};

/* What was served of a file; bytes. */
struct counts {
	uint64_t opens, reads, read_bytes, writes, write_bytes;
};

/* What a source was when the page cache was filled from it. */
struct source {
	char *path;
	uint64_t device, inode, mode, uid, gid;
	int64_t size, blocks;  /* bytes; 512-byte units */
	struct timespec mtime, ctime;
};

/* The sources of a file that may be opened without asking Python; the last user frees it. */
struct sources {
	long users;
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
	long open, bound;       /* descriptors */
	long asked;             /* how often a window was wanted */
	struct window windows[WINDOWS];
	struct file *buckets[BUCKETS + 1];  /* the last one holds what was forgotten, until it is harvested */
};

/* By whoever serves; no lock of Python's is needed. */

/* The pieces of a range, and their file and descriptors kept from going away; -1 for what Python shall do. */
int table_hold(struct table *table, uint64_t ino, uint64_t offset, uint32_t length, bool writing,
	       struct piece *pieces, struct file **held);
void table_release(struct table *table, struct file *file, const struct piece *pieces, int count);
/* False when the file was forgotten meanwhile. */
bool table_count(struct table *table, struct file *file, bool writing, uint64_t bytes);

/* The sources of a file that may be opened, kept from going away; NULL for what Python shall do. */
struct sources *table_hold_sources(struct table *table, uint64_t ino);
void table_release_sources(struct table *table, struct sources *sources);
/* Count an OPEN; false when the file was forgotten meanwhile. */
bool table_count_open(struct table *table, uint64_t ino, const struct sources *sources);

/* With the interpreter's lock: what a file refers to is Python's. */

/* What was counted since this was asked last; the number of *rows, which the caller frees, or -1 without memory. */
Py_ssize_t table_harvest(struct table *table, struct row **rows);
void table_free_file(struct file *file);
/* False when it is known already, or everything was forgotten since `epoch`. */
bool table_add(struct table *table, long epoch, struct file *file);
bool table_knows(struct table *table, uint64_t ino);
/* Read and write `target` of a file through a duplicate of fd; false when it would be one too many. */
bool table_use(struct table *table, long epoch, uint64_t ino, Py_ssize_t target, int fd);
/* Answer OPENs of a file that is known as long as its sources are these, which the table takes and frees. */
void table_open(struct table *table, long epoch, uint64_t ino, struct sources *sources);
/* Forget all files, and close what no request under way uses; lets go of the interpreter's lock meanwhile. */
void table_clear(struct table *table);

#endif
