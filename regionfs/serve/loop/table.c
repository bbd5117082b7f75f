/*
 * What the loop knows: a hash table of files by inode number, each with the columns of its regions.RegionMap and
 * duplicates of its sources' descriptors. Learned file by file, forgotten all at once.
 */
#include "table.h"

#include <stdlib.h>

struct file *table_find(struct table *table, uint64_t ino)
{
	struct file *file = table->buckets[ino % BUCKETS];

	while (file && file->ino != ino)
		file = file->next;
	return file;
}

/* The first region that ends after offset. */
static int64_t first_after(const struct file *file, int64_t offset)
{
	int64_t low = 0, high = file->count;

	while (low < high) {
		int64_t middle = low + (high - low) / 2;
		if (file->ends[middle] > offset)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

static bool add_piece(struct piece *pieces, int *count, struct handle *handle, int64_t address, int64_t length)
{
	struct piece *last = *count ? &pieces[*count - 1] : NULL;

	if (last && last->handle == handle && (!handle || last->address + (int64_t)last->length == address)) {
		last->length += length;
		return true;
	}
	if (*count == PIECES)
		return false;
	pieces[(*count)++] = (struct piece){handle, address, length};
	return true;
}

/* Tile [offset, end) as plan.plan_read does; the number of pieces, or -1 for what Python shall do. */
static int plan(const struct file *file, int64_t offset, int64_t end, bool writing, struct piece *pieces)
{
	int count = 0;

	if (file->whole) {
		if (!file->handle[0] || (writing && !handle_writes(file->handle[0])))
			return -1;
		add_piece(pieces, &count, file->handle[0], offset, end - offset);
		return count;
	}
	for (int64_t index = first_after(file, offset); offset < end; index++) {
		int64_t start = index < file->count ? file->starts[index] : INT64_MAX;
		int64_t stop = index < file->count ? file->ends[index] : INT64_MAX;
		struct handle *handle = NULL;

		if (offset < start) { /* a gap */
			if (start > end)
				start = end;
			if (writing || !add_piece(pieces, &count, NULL, 0, start - offset))
				return -1;
			offset = start;
			if (offset == end)
				break;
		}
		if (stop > end)
			stop = end;
		if (writing && !file->rw[index])
			return -1;
		if (file->targets[index] != HOLE) {
			if (file->targets[index] < 0 || !(handle = file->handle[file->targets[index]]) ||
			    (writing && !handle_writes(handle)))
				return -1;
		}
		if (!add_piece(pieces, &count, handle, offset + file->shifts[index], stop - offset))
			return -1;
		offset = stop;
	}
	return count;
}

/* With the lock. */
static int hold(struct table *table, const struct request *request, bool writing, struct piece *pieces,
		struct file **held)
{
	struct file *file = table_find(table, request->ino);
	int count = -1;

	if (file && (!writing || file->writable)) {
		int64_t start = request->offset, end = start + request->count;
		bool inside = file->whole || (writing ? end <= file->size : start < file->size);

		if (!file->whole && end > file->size)
			end = file->size;
		if (inside)
			count = plan(file, start, end, writing, pieces);
	}
	if (count >= 0) {
		file->users++;
		for (int index = 0; index < count; index++)
			if (pieces[index].handle)
				pieces[index].handle->users++;
		*held = file;
	}
	return count;
}

static bool is_range(const struct request *request)
{
	return request->count && request->offset <= (uint64_t)INT64_MAX - request->count;
}

int table_hold(struct table *table, const struct request *request, struct piece *pieces, struct file **held)
{
	int count;

	if (!is_range(request))
		return -1;
	pthread_mutex_lock(&table->lock);
	count = hold(table, request, false, pieces, held);
	pthread_mutex_unlock(&table->lock);
	return count;
}

int table_hold_write(struct table *table, const struct request *request, struct piece *pieces, struct file **held,
		     struct task **task)
{
	int count;

	*task = NULL;
	if (!is_range(request))
		return -1;
	pthread_mutex_lock(&table->lock);
	count = hold(table, request, true, pieces, held);
	if (count >= 0)
		*task = underway_begin(&table->underway, request->unique, request->ino, request->offset,
				       request->offset + request->count);
	pthread_mutex_unlock(&table->lock);
	return count;
}

void table_release(struct table *table, struct file *file, const struct piece *pieces, int count)
{
	struct handle *unused = NULL;

	pthread_mutex_lock(&table->lock);
	file->users--;
	for (int index = 0; index < count; index++)
		if (pieces[index].handle)
			table_let_go(table, pieces[index].handle, &unused);
	pthread_mutex_unlock(&table->lock);
	table_close_all(unused);
}

void table_count(struct table *table, struct file *file, uint64_t bytes)
{
	pthread_mutex_lock(&table->lock);
	file->counts.reads++;
	file->counts.read_bytes += bytes;
	pthread_mutex_unlock(&table->lock);
}

bool table_written(struct table *table, struct file *file, const struct request *request, struct task *task)
{
	bool known;

	pthread_mutex_lock(&table->lock);
	/* a file that the loop writes has its bytes for itself, so its own requests are all that can be there */
	known = !file->forgotten && underway_overtake(&table->underway, task, request->ino, request->offset,
						      request->offset + request->count, true);
	if (known) {
		file->counts.writes++;
		file->counts.write_bytes += request->count;
		if (task)
			task->result = underway_done(request->count);
	}
	pthread_mutex_unlock(&table->lock);
	return known;
}

struct task *table_begin(struct table *table, uint64_t unique, uint64_t ino, uint64_t start, uint64_t end)
{
	struct task *task;

	pthread_mutex_lock(&table->lock);
	task = underway_begin(&table->underway, unique, ino, start, end);
	pthread_mutex_unlock(&table->lock);
	return task;
}

bool table_overtake(struct table *table, const struct task *task, uint64_t ino, uint64_t start, uint64_t end,
		     bool waits)
{
	bool known;

	pthread_mutex_lock(&table->lock);
	known = underway_overtake(&table->underway, task, ino, start, end, waits);
	pthread_mutex_unlock(&table->lock);
	return known;
}

void table_free_file(struct file *file)
{
	for (int index = 0; index < COLUMNS; index++)
		PyBuffer_Release(&file->buffers[index]);
	Py_XDECREF(file->counters);
	free(file->handle);
	free(file);
}

static bool counted(const struct file *file)
{
	return file->counts.opens || file->counts.backed || file->counts.reads || file->counts.writes;
}

/* Free what was forgotten, has been harvested and is no longer in use. */
static void sweep(struct table *table)
{
	struct file *unused = NULL, *file;

	pthread_mutex_lock(&table->lock);
	for (struct file **at = &table->buckets[BUCKETS]; (file = *at);) {
		if (file->users || counted(file)) {
			at = &file->next;
			continue;
		}
		*at = file->next;
		file->next = unused;
		unused = file;
	}
	pthread_mutex_unlock(&table->lock);
	while ((file = unused)) {
		unused = file->next;
		table_free_file(file);
	}
}

Py_ssize_t table_harvest(struct table *table, struct row **rows)
{
	Py_ssize_t count = 0;

	pthread_mutex_lock(&table->lock);
	for (int index = 0; index <= BUCKETS; index++)
		for (struct file *file = table->buckets[index]; file; file = file->next)
			count += counted(file);
	*rows = malloc((count + 1) * sizeof **rows);
	if (!*rows)
		count = -1;
	for (Py_ssize_t index = 0, row = 0; *rows && index <= BUCKETS; index++) {
		for (struct file *file = table->buckets[index]; file; file = file->next) {
			if (!counted(file))
				continue;
			(*rows)[row++] = (struct row){Py_NewRef(file->counters), file->counts};
			file->counts = (struct counts){0};
		}
	}
	pthread_mutex_unlock(&table->lock);
	sweep(table);
	return count;
}

bool table_knows(struct table *table, uint64_t ino)
{
	bool known;

	pthread_mutex_lock(&table->lock);
	known = table_find(table, ino);
	pthread_mutex_unlock(&table->lock);
	return known;
}

bool table_add(struct table *table, long epoch, struct file *file)
{
	bool added;

	pthread_mutex_lock(&table->lock);
	added = epoch == table->epoch && !table_find(table, file->ino);
	if (added) {
		struct file **bucket = &table->buckets[file->ino % BUCKETS];

		file->next = *bucket;
		*bucket = file;
	}
	pthread_mutex_unlock(&table->lock);
	return added;
}

void table_clear(struct table *table)
{
	struct handle *unused = NULL;

	pthread_mutex_lock(&table->lock);
	table->epoch++;
	for (int index = 0; index < BUCKETS; index++) {
		struct sources *sources;
		struct file *file;

		while ((file = table->buckets[index])) {
			table_drop_handles(table, file, &unused);
			sources = file->sources;
			if (table_drop_sources(table, file))
				table_free_sources(sources);
			file->forgotten = true;
			table->buckets[index] = file->next;
			file->next = table->buckets[BUCKETS];
			table->buckets[BUCKETS] = file;
		}
	}
	pthread_mutex_unlock(&table->lock);
	Py_BEGIN_ALLOW_THREADS
	table_close_all(unused);
	Py_END_ALLOW_THREADS
}
