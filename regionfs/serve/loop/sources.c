/* What the loop knows of files that may be opened: their sources, and where passthrough ones have their entry. */
#include "table.h"

#include <stdlib.h>
#include <string.h>

void table_free_sources(struct sources *sources)
{
	for (Py_ssize_t index = 0; index < sources->count; index++)
		free(sources->source[index].path);
	free(sources->name);
	free(sources);
}

static bool same_time(struct timespec one, struct timespec other)
{
	return one.tv_sec == other.tv_sec && one.tv_nsec == other.tv_nsec;
}

/* As SourceFacts.hold: then who looked closer would find nothing else. */
bool source_is(const struct source *source, const struct stat *found)
{
	return found->st_ino == source->inode && same_time(found->st_ctim, source->ctime) &&
	       same_time(found->st_mtim, source->mtime) && found->st_size == source->size &&
	       found->st_dev == source->device && found->st_blocks == source->blocks && found->st_mode == source->mode &&
	       found->st_uid == source->uid && found->st_gid == source->gid;
}

bool sources_unchanged(const struct sources *sources, struct timespec *atime)
{
	struct stat found;

	for (Py_ssize_t index = 0; index < sources->count; index++) {
		if (stat(sources->source[index].path, &found) || !source_is(&sources->source[index], &found))
			return false;
		*atime = found.st_atim;
	}
	return true;
}

/* The place in the chain of those with a name, that points to the one of this name or to NULL; FNV-1a. */
static struct sources **named(struct table *table, uint64_t parent, const char *name)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325) ^ parent;
	struct sources **at;

	for (const char *letter = name; *letter; letter++)
		hash = (hash ^ (unsigned char)*letter) * UINT64_C(0x100000001b3);
	at = &table->names[(hash ^ hash >> 32) % BUCKETS];
	while (*at && ((*at)->parent != parent || strcmp((*at)->name, name)))
		at = &(*at)->next;
	return at;
}

/* The sources of a file, held; with the lock. */
static struct sources *hold(struct sources *sources)
{
	if (sources)
		sources->users++;
	return sources;
}

struct sources *table_hold_sources(struct table *table, uint64_t ino)
{
	struct sources *sources;
	struct file *file;

	pthread_mutex_lock(&table->lock);
	file = table_find(table, ino);
	sources = hold(file ? file->sources : NULL);
	pthread_mutex_unlock(&table->lock);
	return sources;
}

struct sources *table_hold_name(struct table *table, uint64_t parent, const char *name)
{
	struct sources *sources;

	pthread_mutex_lock(&table->lock);
	sources = hold(*named(table, parent, name));
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

bool table_drop_sources(struct table *table, struct file *file)
{
	struct sources *sources = file->sources, **at;

	if (!sources)
		return false;
	if (sources->name && *(at = named(table, sources->parent, sources->name)) == sources)
		*at = sources->next;
	file->sources = NULL;
	return --sources->users == 0;
}

/* With the lock; another file may have had the name. */
static void add_name(struct table *table, struct sources *sources)
{
	struct sources **at = named(table, sources->parent, sources->name);

	sources->next = *at ? (*at)->next : NULL;
	*at = sources;
}

void table_open(struct table *table, long epoch, struct sources *sources)
{
	struct sources *gone = sources;
	struct file *file;

	sources->users = 1;
	pthread_mutex_lock(&table->lock);
	file = epoch == table->epoch ? table_find(table, sources->ino) : NULL;
	if (file) {
		gone = file->sources;
		if (!table_drop_sources(table, file))
			gone = NULL;
		file->sources = sources;
		if (sources->name)
			add_name(table, sources);
	}
	pthread_mutex_unlock(&table->lock);
	if (gone)
		table_free_sources(gone);
}

void table_hide(struct table *table, uint64_t ino)
{
	struct file *file;

	pthread_mutex_lock(&table->lock);
	file = table_find(table, ino);
	if (file && file->sources)
		file->sources->entry.nodeid = 0;
	pthread_mutex_unlock(&table->lock);
}

bool table_show(struct table *table, const struct sources *sources, struct entry_out *entry)
{
	bool shown;

	pthread_mutex_lock(&table->lock);
	*entry = sources->entry;
	shown = still(table, sources->ino, sources) && entry->nodeid;
	pthread_mutex_unlock(&table->lock);
	return shown;
}

int64_t table_take_back(struct table *table, uint64_t ino)
{
	struct sources *sources = NULL;
	struct file *file;
	int64_t made = 0;

	pthread_mutex_lock(&table->lock);
	file = table_find(table, ino);
	if (file && file->sources && file->sources->slot) {
		made = file->sources->made;
		sources = file->sources;
		if (!table_drop_sources(table, file))
			sources = NULL;
	}
	pthread_mutex_unlock(&table->lock);
	if (sources)
		table_free_sources(sources);
	return made;
}
