/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A load of short TCP connections over loopback, both ends, as fast as two
 * cores go: the yardstick of tests/bench/run.py and of the tests under load.
 *
 *	cc -O2 -pthread -o closes closes.c
 *	./closes --seconds 2 --order client,server
 *
 * It works in a network namespace of its own (needs root), so that the host's
 * ports, TIME_WAIT buckets and sysctls are left alone, and prints one JSON
 * object when it is done. Every socket it opened has reached TCP_CLOSE or
 * TIME_WAIT by then: a tracer of the namespace must have seen exactly
 * 2 * connections closes.
 *
 * Threads block and use no epoll: a pair of them costs the least per
 * connection, which makes a tracer's own cost show the most.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_THREADS 64
#define MAX_PAYLOAD 65536
/* A client that runs ahead of the servers by more than this waits: an accept
 * queue that overflows costs a SYN retransmission, one second each. */
#define MAX_AHEAD 2048
/* Round trips, logarithmic: 2^5 steps per power of two, so 3 % wide. */
#define STEP_BITS 5
#define LATENCY_SLOTS (64 << STEP_BITS)

enum order {
	CLIENT_FIRST,
	SERVER_FIRST,
	CLIENT_RESETS, /* SO_LINGER 0 and close() */
	SERVER_RESETS,
	HALF_CLOSE, /* client: shutdown(SHUT_WR), then reads the answer */
	ORDERS,
};

static const char *const order_names[ORDERS] = {
	"client", "server", "reset", "server-reset", "half-close",
};

static struct {
	int threads;
	uint64_t connections; /* 0: until the seconds are over */
	double seconds;
	enum order orders[16];
	int order_count;
	int request_bytes;
	int response_bytes;
	int requests;  /* per connection */
	int addresses; /* destinations per client thread */
	int processes; /* 1: both ends in one, 2: a client and a server process */
	int time_wait_buckets;
	int port; /* of all servers */
	int rate; /* connections per second of all threads; 0: as fast as they go */
	bool host_netns;
	bool pin;
} options = {
	.threads = 2,
	.seconds = 2,
	.orders = { CLIENT_FIRST },
	.order_count = 1,
	.requests = 1,
	.addresses = 64,
	.processes = 1,
	.time_wait_buckets = 65536,
	.port = 7,
};

/* Shared by both processes. Each thread writes its own cache lines. */
struct tally {
	_Alignas(128) _Atomic uint64_t done;
	uint64_t errors;
	uint64_t by_order[ORDERS];
	int first_errno;
	uint64_t latency[LATENCY_SLOTS];
};

static struct {
	struct tally clients[MAX_THREADS];
	struct tally servers[MAX_THREADS];
	_Atomic bool go;
	_Atomic bool stop;
	_Atomic bool finished;
	_Atomic uint64_t claimed;
} *shared;

static int listeners[MAX_THREADS];
static char payload[MAX_PAYLOAD];

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "closes: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ULL + (uint64_t)t.tv_nsec;
}

static void write_sysctl(const char *name, const char *value)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "/proc/sys/net/%s", name);
	fd = open(path, O_WRONLY);
	/* Not every kernel lets a namespace set all of them: go on. */
	if (fd < 0)
		return;
	if (write(fd, value, strlen(value)) < 0)
		fprintf(stderr, "closes: %s: %s\n", path, strerror(errno));
	close(fd);
}

static void enter_netns(void)
{
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	char buckets[16];
	int fd;

	if (unshare(CLONE_NEWNET) < 0)
		die("unshare(CLONE_NEWNET), needs root");
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &lo) < 0)
		die("lo up");
	close(fd);
	snprintf(buckets, sizeof(buckets), "%d", options.time_wait_buckets);
	write_sysctl("ipv4/ip_local_port_range", "1024 65535");
	write_sysctl("ipv4/tcp_tw_reuse", "1");
	write_sysctl("ipv4/tcp_max_tw_buckets", buckets);
	write_sysctl("ipv4/tcp_max_syn_backlog", "65535");
	write_sysctl("core/somaxconn", "65535");
}

static void pin_to_cpu(int index)
{
	cpu_set_t set;

	if (!options.pin)
		return;
	CPU_ZERO(&set);
	CPU_SET(index % (int)sysconf(_SC_NPROCESSORS_ONLN), &set);
	sched_setaffinity(0, sizeof(set), &set);
}

/* Returns false at EOF, on a reset, or on any other error. */
static bool read_all(int fd, char *buf, int len)
{
	while (len > 0) {
		ssize_t n = read(fd, buf, (size_t)len);

		if (n <= 0)
			return false;
		len -= (int)n;
	}
	return true;
}

static bool write_all(int fd, int len, char first)
{
	char buf[MAX_PAYLOAD];
	const char *from = payload;

	if (len > 0 && first) {
		memcpy(buf, payload, (size_t)len);
		buf[0] = first;
		from = buf;
	}
	while (len > 0) {
		ssize_t n = send(fd, from, (size_t)len, MSG_NOSIGNAL);

		if (n <= 0)
			return false;
		len -= (int)n;
		from += n;
	}
	return true;
}

static void close_with_reset(int fd)
{
	struct linger none = { .l_onoff = 1, .l_linger = 0 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
	close(fd);
}

static void wait_for_eof(int fd)
{
	char rest[4096];

	while (read(fd, rest, sizeof(rest)) > 0)
		;
}

static void count_latency(struct tally *tally, uint64_t ns)
{
	int power;

	ns = ns < (1 << STEP_BITS) ? (1 << STEP_BITS) : ns;
	power = 63 - __builtin_clzll(ns);
	tally->latency[(power << STEP_BITS) |
		       ((ns >> (power - STEP_BITS)) & ((1 << STEP_BITS) - 1))]++;
}

static void count_error(struct tally *tally, int err)
{
	tally->errors++;
	if (!tally->first_errno)
		tally->first_errno = err;
}

/* --- server ------------------------------------------------------------- */

/* The first byte of a request is the order plus one. A connection without a
 * request follows the only order there is. */
static enum order serve_requests(int fd)
{
	static _Thread_local char buf[MAX_PAYLOAD];
	enum order order = options.orders[0];

	for (int i = 0; i < options.requests && options.request_bytes; i++) {
		if (!read_all(fd, buf, options.request_bytes))
			return CLIENT_FIRST;
		order = (enum order)(buf[0] - 1);
		if (order == HALF_CLOSE && i == options.requests - 1)
			wait_for_eof(fd);
		if (!write_all(fd, options.response_bytes, 0))
			return CLIENT_FIRST;
	}
	return order;
}

static void serve_connection(int fd)
{
	enum order order = serve_requests(fd);

	if (order == CLIENT_FIRST || order == CLIENT_RESETS)
		wait_for_eof(fd);
	if (order == SERVER_RESETS)
		close_with_reset(fd);
	else
		close(fd);
}

static void *server_thread(void *arg)
{
	int index = (int)(intptr_t)arg;
	struct tally *tally = &shared->servers[index];

	pin_to_cpu(index);
	for (;;) {
		int fd = accept4(listeners[index], NULL, NULL, SOCK_CLOEXEC);

		if (fd >= 0)
			serve_connection(fd);
		else if (errno == EINVAL)
			return NULL; /* shutdown() by stop_servers() */
		else if (errno != EINTR && errno != ECONNABORTED)
			count_error(tally, errno);
		if (fd >= 0)
			atomic_fetch_add_explicit(&tally->done, 1, memory_order_relaxed);
	}
}

static void listen_all(void)
{
	struct sockaddr_in any = { .sin_family = AF_INET,
				   .sin_port = htons((uint16_t)options.port) };
	int on = 1;

	for (int i = 0; i < options.threads; i++) {
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

		if (fd < 0)
			die("socket");
		setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
		if (bind(fd, (struct sockaddr *)&any, sizeof(any)) < 0)
			die("bind");
		if (listen(fd, 65535) < 0)
			die("listen");
		listeners[i] = fd;
	}
}

static uint64_t sum_done(const struct tally *tallies)
{
	uint64_t sum = 0;

	for (int i = 0; i < options.threads; i++)
		sum += atomic_load_explicit(&tallies[i].done, memory_order_relaxed);
	return sum;
}

/* What was connected is served before the listeners go. */
static void stop_servers(pthread_t *threads)
{
	uint64_t deadline_ns;

	while (!atomic_load(&shared->finished))
		usleep(1000);
	deadline_ns = now_ns() + 5000000000ULL;
	while (sum_done(shared->servers) < sum_done(shared->clients) && now_ns() < deadline_ns)
		usleep(1000);
	for (int i = 0; i < options.threads; i++)
		shutdown(listeners[i], SHUT_RD);
	for (int i = 0; i < options.threads; i++)
		pthread_join(threads[i], NULL);
}

static void start_threads(pthread_t *threads, void *(*run)(void *))
{
	for (int i = 0; i < options.threads; i++)
		if (pthread_create(&threads[i], NULL, run, (void *)(intptr_t)i))
			die("pthread_create");
}

static void *run_servers(void *unused)
{
	pthread_t threads[MAX_THREADS];

	(void)unused;
	start_threads(threads, server_thread);
	stop_servers(threads);
	return NULL;
}

/* --- client ------------------------------------------------------------- */

/* Many destinations, 127.1.0.1 and up: each has the whole range of local ports
 * for itself, so TIME_WAIT never runs the load out of ports. */
static int connect_to(int destination)
{
	struct sockaddr_in addr = {
		.sin_family = AF_INET,
		.sin_port = htons((uint16_t)options.port),
		.sin_addr.s_addr = htonl(0x7f010001 + (uint32_t)destination),
	};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int on = 1;

	if (fd < 0)
		return -1;
	if (options.request_bytes)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0)
		return fd;
	close(fd);
	return -1;
}

static bool make_requests(int fd, enum order order, struct tally *tally)
{
	static _Thread_local char buf[MAX_PAYLOAD];

	for (int i = 0; i < options.requests && options.request_bytes; i++) {
		uint64_t start_ns = now_ns();

		if (!write_all(fd, options.request_bytes, (char)(order + 1)))
			return false;
		if (order == HALF_CLOSE && i == options.requests - 1)
			shutdown(fd, SHUT_WR);
		if (!read_all(fd, buf, options.response_bytes))
			return false;
		if (options.response_bytes)
			count_latency(tally, now_ns() - start_ns);
	}
	return true;
}

static void finish_connection(int fd, enum order order)
{
	if (order == SERVER_FIRST || order == SERVER_RESETS || order == HALF_CLOSE)
		wait_for_eof(fd);
	if (order == CLIENT_RESETS)
		close_with_reset(fd);
	else
		close(fd);
}

static void one_connection(struct tally *tally, enum order order, int destination)
{
	int fd = connect_to(destination);

	/* The server's RST may be here before connect() returns. */
	if (fd < 0 && !(order == SERVER_RESETS && errno == ECONNRESET)) {
		count_error(tally, errno);
		usleep(1000);
		return;
	}
	if (fd >= 0) {
		if (!make_requests(fd, order, tally))
			count_error(tally, errno);
		finish_connection(fd, order);
	}
	tally->by_order[order]++;
	atomic_fetch_add_explicit(&tally->done, 1, memory_order_relaxed);
}

static bool claim_connection(void)
{
	if (atomic_load_explicit(&shared->stop, memory_order_relaxed))
		return false;
	return !options.connections ||
	       atomic_fetch_add_explicit(&shared->claimed, 1, memory_order_relaxed) <
		       options.connections;
}

static void wait_for_turn(uint64_t start_ns, uint64_t number)
{
	uint64_t due_ns, at_ns;

	if (!options.rate)
		return;
	due_ns = start_ns +
		 number * 1000000000ULL * (uint64_t)options.threads / (uint64_t)options.rate;
	while ((at_ns = now_ns()) < due_ns && !atomic_load(&shared->stop))
		usleep((useconds_t)((due_ns - at_ns) / 1000 % 100000 + 1));
}

static void *client_thread(void *arg)
{
	int index = (int)(intptr_t)arg;
	struct tally *tally = &shared->clients[index];
	uint64_t start_ns;

	pin_to_cpu(index);
	while (!atomic_load(&shared->go))
		usleep(100);
	start_ns = now_ns();
	for (uint64_t i = 0; claim_connection(); i++) {
		int destination =
			index * options.addresses + (int)(i % (uint64_t)options.addresses);

		wait_for_turn(start_ns, i);
		one_connection(tally, options.orders[i % (uint64_t)options.order_count],
			       destination);
		while (i % 64 == 0 && !atomic_load(&shared->stop) &&
		       sum_done(shared->clients) > sum_done(shared->servers) + MAX_AHEAD)
			usleep(100);
	}
	return NULL;
}

/* Returns the seconds from the first connection to the last close of a client. */
static double run_clients(void)
{
	struct timespec pause = { .tv_nsec = 1000000 };
	pthread_t threads[MAX_THREADS];
	uint64_t start_ns, end_ns;

	start_threads(threads, client_thread);
	start_ns = now_ns();
	end_ns = start_ns + (uint64_t)(options.seconds * 1e9);
	atomic_store(&shared->go, true);
	while (!options.connections && now_ns() < end_ns)
		nanosleep(&pause, NULL);
	if (!options.connections)
		atomic_store(&shared->stop, true);
	for (int i = 0; i < options.threads; i++)
		pthread_join(threads[i], NULL);
	end_ns = now_ns();
	return (double)(end_ns - start_ns) / 1e9;
}

/* --- report ------------------------------------------------------------- */

static double slot_us(int slot)
{
	int power = slot >> STEP_BITS;
	uint64_t step = (uint64_t)slot & ((1 << STEP_BITS) - 1);

	return (double)(((1ULL << STEP_BITS) | step) << (power - STEP_BITS)) / 1e3;
}

static double percentile_us(double fraction)
{
	uint64_t total = 0, below = 0;

	for (int i = 0; i < options.threads; i++)
		for (int slot = 0; slot < LATENCY_SLOTS; slot++)
			total += shared->clients[i].latency[slot];
	for (int slot = 0; total && slot < LATENCY_SLOTS; slot++) {
		for (int i = 0; i < options.threads; i++)
			below += shared->clients[i].latency[slot];
		if ((double)below >= fraction * (double)total)
			return slot_us(slot);
	}
	return 0;
}

static double cpu_seconds(bool system)
{
	struct rusage self, children;

	getrusage(RUSAGE_SELF, &self);
	getrusage(RUSAGE_CHILDREN, &children);
	if (system)
		return (double)(self.ru_stime.tv_sec + children.ru_stime.tv_sec) +
		       (double)(self.ru_stime.tv_usec + children.ru_stime.tv_usec) / 1e6;
	return (double)(self.ru_utime.tv_sec + children.ru_utime.tv_sec) +
	       (double)(self.ru_utime.tv_usec + children.ru_utime.tv_usec) / 1e6;
}

static void report(double seconds)
{
	uint64_t connections = sum_done(shared->clients), errors = 0;
	struct stat netns = { 0 };
	int first_errno = 0;

	stat("/proc/self/ns/net", &netns);
	for (int i = 0; i < options.threads; i++) {
		errors += shared->clients[i].errors + shared->servers[i].errors;
		if (!first_errno)
			first_errno = shared->clients[i].first_errno;
	}
	printf("{\"connections\": %llu, \"served\": %llu, \"seconds\": %.3f, "
	       "\"connections_per_second\": %.0f, \"errors\": %llu, \"first_errno\": %d, "
	       "\"orders\": {",
	       (unsigned long long)connections, (unsigned long long)sum_done(shared->servers),
	       seconds, (double)connections / seconds, (unsigned long long)errors, first_errno);
	for (int order = 0; order < ORDERS; order++) {
		uint64_t sum = 0;

		for (int i = 0; i < options.threads; i++)
			sum += shared->clients[i].by_order[order];
		printf("%s\"%s\": %llu", order ? ", " : "", order_names[order],
		       (unsigned long long)sum);
	}
	printf("}, \"round_trip_us\": {\"p50\": %.1f, \"p99\": %.1f, \"p999\": %.1f, \"max\": "
	       "%.1f}, "
	       "\"user_seconds\": %.2f, \"system_seconds\": %.2f, \"netns\": %lu}\n",
	       percentile_us(0.5), percentile_us(0.99), percentile_us(0.999), percentile_us(1),
	       cpu_seconds(false), cpu_seconds(true), (unsigned long)netns.st_ino);
}

/* --- options ------------------------------------------------------------ */

static _Noreturn void usage(void)
{
	fputs("usage: closes [--seconds S | --connections N] [--threads N]\n"
	      "  --order LIST          who ends a connection, taken in turn: client, server,\n"
	      "                        reset, server-reset, half-close (client)\n"
	      "  --request BYTES       0: none; a list of orders needs at least 1 (0)\n"
	      "  --response BYTES      (0)\n"
	      "  --requests N          round trips per connection (1)\n"
	      "  --addresses N         destinations per thread, 127.1.0.1 and up (64)\n"
	      "  --processes 1|2       both ends in one process or in two (1)\n"
	      "  --time-wait-buckets N net.ipv4.tcp_max_tw_buckets of the namespace (65536)\n"
	      "  --rate N              connections per second; 0: as many as go (0)\n"
	      "  --port PORT           of the servers (7)\n"
	      "  --host-netns          stay in the caller's namespace\n"
	      "  --pin                 thread N on processor N\n",
	      stderr);
	exit(2);
}

static int parse_int(const char *text, int lowest, int highest)
{
	char *end;
	long value = strtol(text, &end, 10);

	if (*end || end == text || value < lowest || value > highest)
		usage();
	return (int)value;
}

static void parse_orders(char *list)
{
	char *name = strtok(list, ",");

	options.order_count = 0;
	for (; name; name = strtok(NULL, ",")) {
		int order = 0;

		while (order < ORDERS && strcmp(name, order_names[order]))
			order++;
		if (order == ORDERS || options.order_count == 16)
			usage();
		options.orders[options.order_count++] = (enum order)order;
	}
	if (!options.order_count)
		usage();
}

static void parse_option(int option)
{
	switch (option) {
	case 's': options.seconds = atof(optarg); break;
	case 'c': options.connections = strtoull(optarg, NULL, 10); break;
	case 't': options.threads = parse_int(optarg, 1, MAX_THREADS); break;
	case 'o': parse_orders(optarg); break;
	case 'q': options.request_bytes = parse_int(optarg, 0, MAX_PAYLOAD); break;
	case 'r': options.response_bytes = parse_int(optarg, 0, MAX_PAYLOAD); break;
	case 'n': options.requests = parse_int(optarg, 1, 1000000000); break;
	case 'a': options.addresses = parse_int(optarg, 1, 65000); break;
	case 'p': options.processes = parse_int(optarg, 1, 2); break;
	case 'w': options.time_wait_buckets = parse_int(optarg, 0, 1 << 24); break;
	case 'R': options.rate = parse_int(optarg, 0, 10000000); break;
	case 'T': options.port = parse_int(optarg, 1, 65535); break;
	case 'H': options.host_netns = true; break;
	case 'P': options.pin = true; break;
	default: usage();
	}
}

static void parse_options(int argc, char **argv)
{
	static const struct option names[] = {
		{ "seconds", 1, NULL, 's' },
		{ "connections", 1, NULL, 'c' },
		{ "threads", 1, NULL, 't' },
		{ "order", 1, NULL, 'o' },
		{ "request", 1, NULL, 'q' },
		{ "response", 1, NULL, 'r' },
		{ "requests", 1, NULL, 'n' },
		{ "addresses", 1, NULL, 'a' },
		{ "processes", 1, NULL, 'p' },
		{ "time-wait-buckets", 1, NULL, 'w' },
		{ "port", 1, NULL, 'T' },
		{ "host-netns", 0, NULL, 'H' },
		{ "pin", 0, NULL, 'P' },
		{ "rate", 1, NULL, 'R' },
		{ 0 },
	};
	int option;

	while ((option = getopt_long(argc, argv, "", names, NULL)) != -1)
		parse_option(option);
	if (optind != argc || (options.order_count > 1 && !options.request_bytes))
		usage();
	if (options.response_bytes && !options.request_bytes)
		usage();
}

/* The server's process lives until the clients are done, or its parent dies. */
static pid_t fork_servers(void)
{
	pid_t pid = fork();

	if (pid < 0)
		die("fork");
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		run_servers(NULL);
		_exit(0);
	}
	for (int i = 0; i < options.threads; i++)
		close(listeners[i]);
	return pid;
}

int main(int argc, char **argv)
{
	pthread_t servers;
	double seconds;
	pid_t pid = 0;

	parse_options(argc, argv);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	if (shared == MAP_FAILED)
		die("mmap");
	if (!options.host_netns)
		enter_netns();
	listen_all();
	if (options.processes == 2)
		pid = fork_servers();
	else if (pthread_create(&servers, NULL, run_servers, NULL))
		die("pthread_create");
	seconds = run_clients();
	atomic_store(&shared->finished, true);
	if (pid)
		waitpid(pid, NULL, 0);
	else
		pthread_join(servers, NULL);
	report(seconds);
	return 0;
}
