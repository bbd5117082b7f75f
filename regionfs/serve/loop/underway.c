/* As Underway._begin and _overtake in underway.py, store by store. */
#include "underway.h"

#include <stddef.h>

struct task *underway_begin(struct underway *underway, uint64_t unique, uint64_t ino, uint64_t start, uint64_t end)
{
	struct task *task = NULL;

	while (underway->used && !underway->tasks[underway->used - 1].unique)
		underway->used--;
	for (uint64_t index = 0; index < underway->used; index++) {
		if (underway->tasks[index].unique == unique)
			return &underway->tasks[index];
		if (!task && !underway->tasks[index].unique)
			task = &underway->tasks[index];
	}
	if (!task && underway->used == underway->count)
		return NULL;
	if (!task)
		task = &underway->tasks[underway->used++];
	task->result = 0;
	task->ino = ino;
	task->start = start;
	task->end = end;
	task->overtaken = 0;
	task->before[7] = 0;
	task->unique = unique;
	return task;
}

/* Whether a request has to wait for this one: only for older ones, lest two wait for each other. */
static bool is_waited_for(const struct task *task, const struct task *by)
{
	return !task->result && !task->before[7] && (!by || task->unique < by->unique);
}

/*
 * One more range of a task, or one that grows: those of a client that writes in order lie side by side. False when
 * there is no room, and who overtakes waits.
 */
static bool add_range(struct task *task, uint64_t start, uint64_t end, bool waits)
{
	uint64_t count = task->overtaken;

	for (uint64_t index = 0; index < count && index < OVERTAKEN; index++) {
		volatile uint64_t *range = task->range[index];

		if (start > range[1] || end < range[0])
			continue;
		if (start < range[0])
			range[0] = start;
		if (end > range[1])
			range[1] = end;
		return true;
	}
	if (count == OVERTAKEN && waits)
		return false;
	if (count < OVERTAKEN) {
		task->range[count][0] = start;
		task->range[count][1] = end;
	}
	task->overtaken = count < OVERTAKEN ? count + 1 : OVERTAKEN + 1;
	return true;
}

bool underway_overtake(struct underway *underway, const struct task *by, uint64_t ino, uint64_t start, uint64_t end,
		       bool waits)
{
	bool known = true;

	for (uint64_t index = 0; index < underway->used; index++) {
		struct task *task = &underway->tasks[index];

		if (task != by && task->unique && task->ino == ino && task->start < end && start < task->end)
			known = add_range(task, start > task->start ? start : task->start, end < task->end ? end : task->end,
					  waits && is_waited_for(task, by)) && known;
	}
	return known;
}
