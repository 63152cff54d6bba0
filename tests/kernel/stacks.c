// SPDX-License-Identifier: Apache-2.0
/*
 * Leaks connections from functions whose names a test looks for.
 *
 * stacks accept        says its port, accepts, reads to the end, keeps
 * stacks jit           the same, by code made at run time that a perf map names
 * stacks hand_over     the same, but a child accepts, hands over and is gone
 * stacks connect PORT  connects fifty times a second, reads to the end, keeps
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* Not inlined, and not a jump at its end: a frame of its own. */
#define FRAME __attribute__((noinline))
#define STAYS __asm__ volatile("")

static int listener;
static struct sockaddr_in at = { .sin_family = AF_INET };

static void read_to_the_end(int fd)
{
	char bytes[64];

	while (read(fd, bytes, sizeof(bytes)) > 0)
		;
}

FRAME int take_one(void)
{
	int fd = accept(listener, NULL, NULL);

	STAYS;
	return fd;
}

FRAME void forget_accepted(void)
{
	for (;;)
		read_to_the_end(take_one());
}

FRAME int connect_one(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (connect(fd, (struct sockaddr *)&at, sizeof(at)))
		exit(1);
	return fd;
}

FRAME void forget_connected(void)
{
	for (;;) {
		read_to_the_end(connect_one());
		usleep(20000);
	}
}

#ifdef __x86_64__
/* push %rbp; mov %rsp,%rbp; call *%rdi; pop %rbp; ret */
static const unsigned char trampoline[] = { 0x55, 0x48, 0x89, 0xe5, 0xff, 0xd7, 0x5d, 0xc3 };

FRAME static void forget_compiled(void)
{
	void *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char path[64];
	FILE *map;

	memcpy(code, trampoline, sizeof(trampoline));
	snprintf(path, sizeof(path), "/tmp/perf-%d.map", getpid());
	map = fopen(path, "w");
	fprintf(map, "%lx %zx py::handle:/srv/\033[31mapp.py\n", (unsigned long)code,
		sizeof(trampoline));
	fclose(map);
	((void (*)(void (*)(void)))code)(forget_accepted);
}
#endif

static void send_fd(int channel, int fd)
{
	char byte = 0, control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec one = { &byte, 1 };
	struct msghdr message = { .msg_iov = &one,
				  .msg_iovlen = 1,
				  .msg_control = control,
				  .msg_controllen = sizeof(control) };
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(header), &fd, sizeof(fd));
	sendmsg(channel, &message, 0);
}

static int receive_fd(int channel)
{
	char byte, control[CMSG_SPACE(sizeof(int))];
	struct iovec one = { &byte, 1 };
	struct msghdr message = { .msg_iov = &one,
				  .msg_iovlen = 1,
				  .msg_control = control,
				  .msg_controllen = sizeof(control) };
	int fd = -1;

	if (recvmsg(channel, &message, 0) > 0 && CMSG_FIRSTHDR(&message))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
	return fd;
}

static void forget_handed_over(void)
{
	int ends[2];

	socketpair(AF_UNIX, SOCK_DGRAM, 0, ends);
	for (;;) {
		if (!fork()) {
			send_fd(ends[1], take_one());
			_exit(0);
		}
		wait(NULL);
		read_to_the_end(receive_fd(ends[0]));
	}
}

static void listen_somewhere(void)
{
	socklen_t size = sizeof(at);

	listener = socket(AF_INET, SOCK_STREAM, 0);
	bind(listener, (struct sockaddr *)&at, size);
	listen(listener, 64);
	getsockname(listener, (struct sockaddr *)&at, &size);
	printf("%d\n", ntohs(at.sin_port));
	fflush(stdout);
}

int main(int argc, char **argv)
{
	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (argc > 2) {
		at.sin_port = htons(atoi(argv[2]));
		forget_connected();
	}
	listen_somewhere();
	if (!strcmp(argv[1], "accept"))
		forget_accepted();
#ifdef __x86_64__
	if (!strcmp(argv[1], "jit"))
		forget_compiled();
#endif
	forget_handed_over();
}
