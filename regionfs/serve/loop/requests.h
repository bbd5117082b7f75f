/* The kernel's messages, linux/fuse.h: requests that the loop answers, and its replies. */
#ifndef REGIONFS_REQUESTS_H
#define REGIONFS_REQUESTS_H

#include <stdint.h>
#include <sys/ioctl.h>

/* tests/serve/test_loop_layouts.py compares all of this with the header that is installed */
enum { OPCODE_LOOKUP = 1, OPCODE_GETATTR = 3, OPCODE_OPEN = 14, OPCODE_READ = 15, OPCODE_WRITE = 16,
       OPCODE_RELEASE = 18 };
#define UNIQUE_RESEND (UINT64_C(1) << 63)  /* in `unique`: it was sent to another server before */

/* fuse_in_header, and fuse_read_in or fuse_write_in. */
struct request {
	uint32_t length, opcode;
	uint64_t unique, ino;
	uint32_t uid, gid, pid, padding;
	uint64_t fh, offset;
	uint32_t count, io_flags;
	uint64_t lock_owner;
	uint32_t flags, unused;
};

struct open_request {
	char header[40];
	uint32_t flags, open_flags;
};

/* Bytes of a fuse_in_header, and of one with fuse_getattr_in or fuse_release_in. */
enum { HEADER_SIZE = 40, GETATTR_SIZE = 56, RELEASE_SIZE = 64 };

struct reply {
	uint32_t length;
	int32_t error;
	uint64_t unique;
};

struct write_reply {
	struct reply header;
	uint32_t count, padding;
};

struct open_reply {
	struct reply header;
	uint64_t handle;
	uint32_t flags;
	int32_t backing_id;
};

/* fuse_attr */
struct attr {
	uint64_t ino, size, blocks, atime, mtime, ctime;
	uint32_t atimensec, mtimensec, ctimensec, mode, nlink, uid, gid, rdev, blksize, flags;
};

/* fuse_entry_out */
struct entry_out {
	uint64_t nodeid, generation, entry_valid, attr_valid;
	uint32_t entry_valid_nsec, attr_valid_nsec;
	struct attr attr;
};

struct entry_reply {
	struct reply header;
	struct entry_out entry;
};

/* fuse_attr_out */
struct attr_reply {
	struct reply header;
	uint64_t attr_valid;
	uint32_t attr_valid_nsec, padding;
	struct attr attr;
};

enum { FOPEN_KEEP_CACHE = 2, FOPEN_PASSTHROUGH = 128 };
enum { WRITE_CACHE = 1, WRITE_KILL_SUIDGID = 4 };

/* fuse_backing_map */
struct backing_map {
	int32_t fd;
	uint32_t flags;
	uint64_t padding;
};

#define BACKING_OPEN _IOW(229, 1, struct backing_map)
#define BACKING_CLOSE _IOW(229, 2, uint32_t)

_Static_assert(sizeof(struct entry_reply) == 144 && sizeof(struct attr_reply) == 120, "linux/fuse.h");
_Static_assert(sizeof(struct open_request) == 48 && sizeof(struct open_reply) == 32, "linux/fuse.h");
_Static_assert(sizeof(struct request) == 80 && sizeof(struct reply) == 16 && sizeof(struct write_reply) == 24,
	       "linux/fuse.h");

/* What became of a request: answered, Python's to do, or the same for a READ that would wait for a disk. */
enum outcome { DONE, UNKNOWN, WAITS };

#endif
