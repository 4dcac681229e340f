/* What the client and the floor's handler share. Every failure ends the program:
 * a benchmark that goes on after one measures something else. */
#ifndef COMMON_H
#define COMMON_H
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define PAGE 4096UL

#define DIE(...)                                        \
	do {                                                \
		int e = errno;                                  \
		fprintf(stderr, "%s:%d: ", __FILE__, __LINE__); \
		fprintf(stderr, __VA_ARGS__);                   \
		fprintf(stderr, ": %s\n", strerror(e));         \
		exit(1);                                        \
	} while (0)

/* pin binds the calling thread to a CPU, or leaves it free if cpu is negative. */
static inline void pin(int cpu)
{
	cpu_set_t set;
	if (cpu < 0)
		return;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof set, &set))
		DIE("bind to CPU %d", cpu);
}

/* fresh maps anonymous memory of small pages, none of them present. */
static inline char *fresh(size_t size)
{
	char *p = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		DIE("map %zu bytes", size);
	madvise(p, size, MADV_NOHUGEPAGE);
	return p;
}

static inline int open_file(const char *path, size_t *size)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st))
		DIE("open %s", path);
	*size = st.st_size;
	return fd;
}

static inline void read_whole(int fd, char *to, size_t size, size_t chunk)
{
	for (size_t at = 0; at < size; at += chunk) {
		size_t n = chunk < size - at ? chunk : size - at;
		if (pread(fd, to + at, n, at) != (ssize_t)n)
			DIE("read %zu bytes at %zu", n, at);
	}
}

static inline struct sockaddr_un unix_address(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
	return a;
}
#endif
