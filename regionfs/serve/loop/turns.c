/* That something may stall: see turns.h. */
#include "turns.h"

#include <time.h>

int64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

void safe(struct turns *turns, int64_t since)
{
	atomic_compare_exchange_strong(&turns->since, &since, 0);
}

bool risk(struct turns *turns, int64_t *since)
{
	int64_t none = 0;

	*since = now();
	/* whoever is watched already stays watched */
	if (!atomic_compare_exchange_strong(&turns->since, &none, *since))
		return false;
	/* only now: a watchman who falls asleep says so first, and looks at `since` after */
	if (turns->awake)
		return true;
	safe(turns, *since);
	return false;
}
