/* What the loop knows of files that may be opened: their sources, and where passthrough ones have their entry. */
#include "table.h"

#include <stdlib.h>

void table_free_sources(struct sources *sources)
{
	for (Py_ssize_t index = 0; index < sources->count; index++)
		free(sources->source[index].path);
	free(sources);
}

struct sources *table_hold_sources(struct table *table, uint64_t ino)
{
	struct sources *sources;
	struct file *file;

	pthread_mutex_lock(&table->lock);
	file = table_find(table, ino);
	sources = file ? file->sources : NULL;
	if (sources)
		sources->users++;
	pthread_mutex_unlock(&table->lock);
	return sources;
}

void table_release_sources(struct table *table, struct sources *sources)
{
	bool last;

	pthread_mutex_lock(&table->lock);
	last = --sources->users == 0;
	pthread_mutex_unlock(&table->lock);
	if (last)
		table_free_sources(sources);
}

/* The file, if these are still its sources; with the lock. */
static struct file *still(struct table *table, uint64_t ino, const struct sources *sources)
{
	struct file *file = table_find(table, ino);

	return file && file->sources == sources ? file : NULL;
}

bool table_count_open(struct table *table, uint64_t ino, const struct sources *sources)
{
	struct file *file;

	pthread_mutex_lock(&table->lock);
	file = still(table, ino, sources);
	if (file)
		file->counts.opens++;
	pthread_mutex_unlock(&table->lock);
	return file;
}

uint64_t table_handles(struct table *table, const struct sources *sources)
{
	uint64_t handles;

	pthread_mutex_lock(&table->lock);
	handles = sources->slot[2];
	pthread_mutex_unlock(&table->lock);
	return handles;
}

int table_count_handle(struct table *table, uint64_t ino, struct sources *sources, uint64_t unique, int registered,
		       int64_t since)
{
	struct entry entry = {ino, registered, 1, 0};
	struct file *file;

	pthread_mutex_lock(&table->lock);
	file = still(table, ino, sources);
	if (file && sources->slot[2]) {
		entry.backing_id = sources->slot[1];
		entry.handles = sources->slot[2] + 1;
	} else if (registered) {
		sources->made = since;
	} else {
		file = NULL;
	}
	if (file) {
		ledger_write(&table->ledger, unique, sources->slot, &entry);
		file->counts.backed++;
	}
	pthread_mutex_unlock(&table->lock);
	return file ? entry.backing_id : 0;
}

int table_uncount_handle(struct table *table, uint64_t ino, const struct sources *sources, uint64_t unique)
{
	int last = -1;

	pthread_mutex_lock(&table->lock);
	if (still(table, ino, sources) && sources->slot[2]) {
		struct entry entry = {ino, sources->slot[1], sources->slot[2] - 1, 0};

		ledger_write(&table->ledger, unique, sources->slot, &entry);
		last = entry.handles ? 0 : entry.backing_id;
	}
	pthread_mutex_unlock(&table->lock);
	return last;
}

void table_write(struct table *table, uint64_t unique, volatile uint64_t *slot, const struct entry *entry)
{
	pthread_mutex_lock(&table->lock);
	ledger_write(&table->ledger, unique, slot, entry);
	pthread_mutex_unlock(&table->lock);
}

void table_open(struct table *table, long epoch, uint64_t ino, struct sources *sources)
{
	struct sources *before = sources;
	struct file *file;

	sources->users = 1;
	pthread_mutex_lock(&table->lock);
	file = epoch == table->epoch ? table_find(table, ino) : NULL;
	if (file) {
		before = file->sources;
		file->sources = sources;
	}
	pthread_mutex_unlock(&table->lock);
	if (before)
		table_release_sources(table, before);
}

int64_t table_take_back(struct table *table, uint64_t ino)
{
	struct sources *sources = NULL;
	struct file *file;
	int64_t made = 0;

	pthread_mutex_lock(&table->lock);
	file = table_find(table, ino);
	if (file && file->sources && file->sources->slot) {
		sources = file->sources;
		file->sources = NULL;
		made = sources->made;
	}
	pthread_mutex_unlock(&table->lock);
	if (sources)
		table_release_sources(table, sources);
	return made;
}
