/*
 * Reads or writes several files in turns of a few milliseconds, each place once: who is measured beside whom meets the same
 * disk.
 *
 *     pairs read|randread|write|randwrite BLOCK DIRECT SECONDS FILE...
 *
 * The files are ways to the same bytes. A turn is a stripe in sequence, or some blocks at random, that nobody touched
 * before; in each group of turns every file has one, in random order. Prints a line for each turn: the number of the
 * file, operations, nanoseconds.
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

enum { STRIPE = 2 << 20, BLOCKS = 32, MOST = 8 };  /* bytes in sequence; blocks at random; files */

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

int main(int count, char **words)
{
	int files = count - 5, fds[MOST];
	int64_t order[MOST], *places, places_count, turn, done = 0, end;
	size_t block;
	bool sequential, writes;
	struct stat found;
	void *buffer;

	if (files < 1 || files > MOST)
		return 2;
	sequential = strncmp(words[1], "rand", 4) != 0;
	writes = strstr(words[1], "write");
	block = atoll(words[2]);
	turn = sequential ? STRIPE / block : BLOCKS;
	for (int file = 0; file < files; file++) {
		order[file] = file;
		fds[file] = open(words[5 + file], (writes ? O_WRONLY : O_RDONLY) | (atoi(words[3]) ? O_DIRECT : 0));
		if (fds[file] < 0 || fstat(fds[file], &found))
			fail(words[5 + file]);
	}
	if (posix_memalign(&buffer, 4096, block))
		fail("memory");
	memset(buffer, 'b', block);
	/* stripes or blocks, by number */
	places_count = found.st_size / (sequential ? STRIPE : block);
	places = malloc(places_count * sizeof *places);
	for (int64_t place = 0; place < places_count; place++)
		places[place] = place;
	srandom(now());
	if (!sequential)
		shuffle(places, places_count);
	end = now() + atof(words[4]) * 1e9;
	while (now() < end && (done + files) * (sequential ? 1 : turn) <= places_count) {
		shuffle(order, files);
		for (int index = 0; index < files; index++, done++) {
			int fd = fds[order[index]];
			int64_t began = now();

			for (int64_t step = 0; step < turn; step++) {
				off_t offset = sequential ? places[done] * STRIPE + step * block
							  : places[done * turn + step] * block;
				ssize_t moved = writes ? pwrite(fd, buffer, block, offset) : pread(fd, buffer, block, offset);

				if (moved != (ssize_t)block)
					fail(words[5 + order[index]]);
			}
			printf("%ld %ld %ld\n", order[index], turn, now() - began);
		}
	}
	return 0;
}
