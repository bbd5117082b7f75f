/* How the ledger is written: its layout, and what the order of the stores is for, are told in ledger.py. */
#ifndef REGIONFS_LEDGER_H
#define REGIONFS_LEDGER_H

#include <stdint.h>

/* An open inode, as it lies in a slot. */
struct entry {
	uint64_t ino, backing_id, handles, stamp;
};

enum { ENTRY_WORDS = sizeof(struct entry) / sizeof(uint64_t) };

/* The shared words; a process may die between any two stores, so the compiler keeps their order. */
struct ledger {
	volatile uint64_t *words;
	uint64_t count, journal;  /* words; records of the journal */
};

/* Count a request and what it made of its inode. Callers exclude each other. */
void ledger_write(const struct ledger *ledger, uint64_t unique, volatile uint64_t *slot, const struct entry *entry);

#endif
