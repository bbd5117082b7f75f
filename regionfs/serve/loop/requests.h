/* The kernel's messages, linux/fuse.h: requests that the loop answers, and its replies. */
#ifndef REGIONFS_REQUESTS_H
#define REGIONFS_REQUESTS_H

#include <stdint.h>

enum { OPCODE_OPEN = 14, OPCODE_READ = 15, OPCODE_WRITE = 16, OPCODE_RELEASE = 18 };
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

enum { RELEASE_SIZE = 64 };  /* fuse_in_header, fuse_release_in */

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

_Static_assert(sizeof(struct open_request) == 48 && sizeof(struct open_reply) == 32, "linux/fuse.h");
_Static_assert(sizeof(struct request) == 80 && sizeof(struct reply) == 16 && sizeof(struct write_reply) == 24,
	       "linux/fuse.h");

/* What became of a request: answered, Python's to do, or the same for a READ that would wait for a disk. */
enum outcome { DONE, UNKNOWN, WAITS };

#endif
