/*
 * Touches every file of a list, as fast as a process can: what is measured is the file system.
 *
 *     client stat|open|sum DIRECTORY < paths
 *
 * Prints the nanoseconds that all took, and the bytes: those that stat told or read gave; for sum their checksum.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static char text[16 << 20], buffer[1 << 17];

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static int64_t stat_one(const char *path)
{
	struct stat found;

	if (stat(path, &found))
		fail(path);
	return found.st_size;
}

/* As cat does it: until there is no more. */
static int64_t read_one(const char *path)
{
	int64_t bytes = 0;
	ssize_t count;
	int fd = open(path, O_RDONLY);

	if (fd < 0)
		fail(path);
	while ((count = read(fd, buffer, sizeof buffer)) > 0)
		bytes += count;
	if (count < 0 || close(fd))
		fail(path);
	return bytes;
}

/* FNV-1a over the bytes of all files so far, and where each one ends. */
static int64_t sum_one(const char *path)
{
	static uint64_t sum = 0xcbf29ce484222325, before;
	ssize_t count;
	int fd = open(path, O_RDONLY);

	if (fd < 0)
		fail(path);
	before = sum;
	while ((count = read(fd, buffer, sizeof buffer)) > 0)
		for (ssize_t at = 0; at < count; at++)
			sum = (sum ^ (unsigned char)buffer[at]) * 0x100000001b3;
	if (count < 0 || close(fd))
		fail(path);
	sum = (sum ^ 0x100) * 0x100000001b3;
	return sum - before;
}

int main(int argc, char **argv)
{
	int64_t (*one)(const char *) = stat_one;
	int64_t bytes = 0;
	struct timespec from, to;
	size_t size = fread(text, 1, sizeof text - 1, stdin);

	if (argc != 3 || chdir(argv[2]))
		fail("usage: client stat|open|sum DIRECTORY < paths");
	if (!strcmp(argv[1], "open"))
		one = read_one;
	if (!strcmp(argv[1], "sum"))
		one = sum_one;
	for (size_t at = 0; at < size; at++)
		if (text[at] == '\n')
			text[at] = 0;
	clock_gettime(CLOCK_MONOTONIC, &from);
	for (const char *path = text; path < text + size; path += strlen(path) + 1)
		bytes += one(path);
	clock_gettime(CLOCK_MONOTONIC, &to);
	printf("%lld %lld\n", (to.tv_sec - from.tv_sec) * 1000000000LL + to.tv_nsec - from.tv_nsec, (long long)bytes);
	return 0;
}
