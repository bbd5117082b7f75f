/* The stores of Ledger._store in ledger.py, in the same order. */
#include "ledger.h"

void ledger_write(const struct ledger *ledger, uint64_t unique, volatile uint64_t *slot, const struct entry *entry)
{
	uint64_t position = ledger->words[0];
	volatile uint64_t *record = ledger->words + 1 + position % ledger->journal * (1 + ENTRY_WORDS);

	record[0] = unique;
	record[1] = entry->ino;
	record[2] = entry->backing_id;
	record[3] = entry->handles;
	record[4] = entry->stamp;
	ledger->words[0] = position + 1;
	if (!slot[2]) { /* free: these stay while there are handles */
		slot[0] = entry->ino;
		slot[1] = entry->backing_id;
		slot[3] = entry->stamp;
	}
	slot[2] = entry->handles;
}
