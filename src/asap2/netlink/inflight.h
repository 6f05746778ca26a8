// SPDX-License-Identifier: Apache-2.0
/*
 * The system calls that redirectd has been notified of and has not answered, in memory that outlives the process: the
 * kernel does not tell of them twice, and a caller that nobody answers can only be killed.
 */
#ifndef ASAP2_INFLIGHT_H
#define ASAP2_INFLIGHT_H

#include <linux/seccomp.h>
#include <sys/mman.h>

#include "redirect.h"

#define LISTENERS 1024 /* programs that were started in the node, with all that they have started */
#define WAITING_CALLS 4096

/* A call: that which its listener's thread handles (in slot number *listener*), or one that waits for a message. */
struct call {
	struct seccomp_notif notification; /* the kernel writes it here; id 0: none */
	int32_t taken;
	int32_t listener;
	int32_t worker; /* the process that has it */
	int32_t attempts; /* of workers to handle it after another's death */
	int64_t deadline; /* ms; 0: none */
};

static struct shared {
	struct call calls[LISTENERS + WAITING_CALLS];
} *shared;

static int make_shared(void)
{
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return shared == MAP_FAILED ? -1 : 0;
}

/* A place for a call that waits; NULL when all are taken. */
static struct call *waiting_place(void)
{
	static unsigned next;
	unsigned i;

	for (i = 0; i < WAITING_CALLS; i++) {
		struct call *call =
			&shared->calls[LISTENERS + __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED) % WAITING_CALLS];
		int32_t none = 0;

		if (__atomic_compare_exchange_n(&call->taken, &none, 1, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
			return call;
	}
	return NULL;
}

static void leave_place(struct call *call)
{
	memset(&call->notification, 0, sizeof call->notification);
	call->attempts = 0;
	__atomic_store_n(&call->taken, 0, __ATOMIC_RELEASE);
}

#endif
