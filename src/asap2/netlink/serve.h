// SPDX-License-Identifier: Apache-2.0
/*
 * redirectd's thread for a program and all that it has started: it takes their calls, one after the other, and looks
 * after those that wait for a message.
 */
#ifndef ASAP2_SERVE_H
#define ASAP2_SERVE_H

#include <poll.h>

#include "calls.h"
#include "inflight.h"

#define TICK_MS 50 /* between two looks whether a waiting call has timed out or been interrupted */

static int listeners[LISTENERS]; /* plus one, so that zero is none */

/* The calls of one listener that wait for a message, with their sockets. */
struct waiting {
	struct pollfd *polled; /* [0] is the listener */
	struct call **calls;
	size_t count, room;
};

static void wait_for(struct waiting *waiting, const struct call *handled, int fd)
{
	struct timeval limit = { 0 };
	socklen_t length = sizeof limit;
	/* no program may take all places */
	struct call *place = waiting->count < WAITING_CALLS / 4 ? waiting_place() : NULL;

	if (place && waiting->count + 1 >= waiting->room) {
		waiting->room = waiting->room ? waiting->room * 2 : 16;
		waiting->polled = realloc(waiting->polled, waiting->room * sizeof *waiting->polled);
		waiting->calls = realloc(waiting->calls, waiting->room * sizeof *waiting->calls);
		if (!waiting->polled || !waiting->calls)
			abort();
	}
	if (!place) {
		reply(handled->notification.id, 0, ENOBUFS, 0);
		close(fd);
		return;
	}
	getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, &length);
	place->listener = handled->listener;
	place->worker = getpid();
	place->attempts = 0;
	place->deadline = limit.tv_sec || limit.tv_usec ?
				  now_ms() + limit.tv_sec * 1000 + (limit.tv_usec + 999) / 1000 :
				  0;
	place->notification = handled->notification;
	waiting->count++;
	waiting->calls[waiting->count] = place;
	waiting->polled[waiting->count] = (struct pollfd){ .fd = fd, .events = POLLIN };
}

/* Take a waiting call out; the last one gets its place. */
static void no_longer(struct waiting *waiting, size_t i)
{
	close(waiting->polled[i].fd);
	leave_place(waiting->calls[i]);
	waiting->polled[i] = waiting->polled[waiting->count];
	waiting->calls[i] = waiting->calls[waiting->count];
	waiting->count--;
}

/* Look after the waiting calls: those that a message has come for, and with *all* the others. */
static void look_at(struct waiting *waiting, int all)
{
	size_t i;

	for (i = waiting->count; i > 0; i--) {
		const struct call *call = waiting->calls[i];
		const struct seccomp_notif *q = &call->notification;
		int64_t result = NOT_YET;
		int error;

		if (waiting->polled[i].revents && is_valid(q->id))
			result = on_receive(q, waiting->polled[i].fd);
		if (result != NOT_YET) {
			answer(q->id, result);
		} else if (all || waiting->polled[i].revents) {
			if (call->deadline && now_ms() >= call->deadline)
				reply(q->id, 0, EAGAIN, 0);
			else if ((error = interrupted(q->pid, call->deadline != 0)))
				reply(q->id, 0, error, 0);
			else if (is_valid(q->id))
				continue;
		} else
			continue;
		no_longer(waiting, i);
	}
}

/* Answer what a worker that died has left of this listener. Only what receives is done again. */
static void recover(int number, struct waiting *waiting)
{
	size_t i;

	for (i = 0; i < LISTENERS + WAITING_CALLS; i++) {
		struct call *call = &shared->calls[i];
		int fd;

		if (!call->notification.id || call->listener != number || call->worker == getpid())
			continue;
		if (is_valid(call->notification.id)) {
			call->attempts++;
			if (is_receive(call->notification.data.nr) && call->attempts == 1) {
				if ((fd = handle(&call->notification)) >= 0)
					wait_for(waiting, call, fd);
			} else
				reply(call->notification.id, 0, ECONNREFUSED, 0);
		}
		leave_place(call);
	}
}

/* Serve the listener with that number until its last program has ended. */
static void *serve(void *argument)
{
	int number = (int)(intptr_t)argument;
	struct call *own_call = &shared->calls[number];
	struct waiting waiting = { 0 };
	struct pollfd alone = { 0 };
	int64_t looked = 0;
	int fd;

	listener = listeners[number] - 1;
	buffer = malloc(ROOM);
	if (!buffer)
		abort();
	recover(number, &waiting);
	own_call->listener = number;
	own_call->worker = getpid();
	for (;;) {
		struct pollfd *polled = waiting.count ? waiting.polled : &alone;

		polled[0] = (struct pollfd){ .fd = listener, .events = POLLIN };
		if (poll(polled, waiting.count + 1, waiting.count ? TICK_MS : -1) < 0)
			continue;
		fd = -1;
		if (polled[0].revents & POLLIN) {
			memset(&own_call->notification, 0, sizeof own_call->notification);
			if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &own_call->notification) == 0)
				fd = handle(&own_call->notification);
		} else if (polled[0].revents)
			break;
		if (waiting.count) {
			int all = now_ms() >= looked + TICK_MS;

			look_at(&waiting, all);
			if (all)
				looked = now_ms();
		}
		if (fd >= 0)
			wait_for(&waiting, own_call, fd);
		leave_place(own_call);
	}
	while (waiting.count)
		no_longer(&waiting, waiting.count);
	for (fd = 0; fd < CALLERS; fd++)
		if (known_callers[fd].tid)
			close(known_callers[fd].handle);
	free(waiting.polled);
	free(waiting.calls);
	free(buffer);
	__atomic_store_n(&listeners[number], 0, __ATOMIC_RELEASE);
	close(listener);
	return NULL;
}

#endif
