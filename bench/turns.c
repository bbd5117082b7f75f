/*
 * Reads or writes several files in turns, each place once: who is measured beside whom meets the same disk.
 *
 *     turns read|randread|write|randwrite BLOCK TURN DIRECT SECONDS FILE...
 *
 * The files are ways to the same bytes. A turn is TURN bytes that nobody touched before, in blocks of BLOCK bytes: one
 * stretch of the file, or blocks from anywhere. It ends on the disk: writes into the page cache are synced. In each group
 * of turns every file has one, in random order; none begins after SECONDS, or when the file is used up. Prints a line for
 * each turn: the number of the file and nanoseconds.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { AHEAD = 16 << 20, MOST = 8 };  /* bytes, more than the kernel reads ahead; files */

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static int64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

static void shuffle(int64_t *numbers, int64_t count)
{
	for (int64_t left = count; left > 1; left--) {
		int64_t other = random() % left, number = numbers[left - 1];

		numbers[left - 1] = numbers[other];
		numbers[other] = number;
	}
}

/* 0 to count - 1 in random order */
static int64_t *shuffled(int64_t count)
{
	int64_t *numbers = malloc(count * sizeof *numbers);

	if (!numbers)
		fail("memory");
	for (int64_t number = 0; number < count; number++)
		numbers[number] = number;
	shuffle(numbers, count);
	return numbers;
}

int main(int count, char **words)
{
	int files = count - 6, fds[MOST];
	int64_t order[MOST], *places, available, each, taken = 0, end;
	size_t block, turn, stride;
	bool sequential, writes, direct;
	struct stat found;
	void *buffer;

	if (files < 1 || files > MOST)
		return 2;
	sequential = strncmp(words[1], "rand", 4) != 0;
	writes = strstr(words[1], "write");
	block = atoll(words[2]);
	turn = atoll(words[3]);
	direct = atoi(words[4]);
	for (int file = 0; file < files; file++) {
		order[file] = file;
		fds[file] = open(words[6 + file], (writes ? O_WRONLY : O_RDONLY) | (direct ? O_DIRECT : 0));
		if (fds[file] < 0 || fstat(fds[file], &found))
			fail(words[6 + file]);
	}
	if (posix_memalign(&buffer, 4096, block))
		fail("memory");
	memset(buffer, 'b', block);
	/* places are stretches or blocks; what one reads ahead past his stretch is nobody's */
	stride = !sequential ? block : writes || direct ? turn : turn + AHEAD;
	each = sequential ? 1 : turn / block;
	available = found.st_size / stride;
	srandom(now());
	places = shuffled(available);
	end = now() + atof(words[5]) * 1e9;
	while (now() < end && taken + files * each <= available) {
		shuffle(order, files);
		for (int index = 0; index < files; index++, taken += each) {
			int fd = fds[order[index]];
			int64_t began = now();

			for (size_t step = 0; step < turn / block; step++) {
				off_t offset = sequential ? places[taken] * stride + step * block
							  : places[taken + step] * stride;
				ssize_t moved = writes ? pwrite(fd, buffer, block, offset) : pread(fd, buffer, block, offset);

				if (moved != (ssize_t)block)
					fail(words[6 + order[index]]);
			}
			if (writes && !direct && fsync(fd))
				fail(words[6 + order[index]]);
			printf("%ld %ld\n", order[index], now() - began);
		}
	}
	return 0;
}
