/* The client of every measurement, so that only the handler differs. It makes
 * memory that is missing, hands it over as Firecracker 1.12 does, touches it,
 * and then compares every page with the file that it must show.
 *
 *   client -r FILE [-s SOCKET | -e | -m] [-o seq|random|none] [-t STEP] [-S SEED] [-c CPU]
 *
 * With -s faults go to the handler behind the socket; -e reads the whole file into
 * the memory instead, and -m maps it. STEP is in pages: one of so many is touched.
 * With "-o none" it touches nothing and waits until everything is resident.
 *
 * It prints "ready", waits for a byte on its standard input, and prints the
 * figures, in nanoseconds, as one JSON object. */
#include "common.h"
#include <sys/syscall.h>
#include <time.h>

enum source { HANDLER, EAGER, MAPPED };

static struct {
	const char *file, *socket, *order;
	enum source source;
	size_t step;
	uint64_t seed;
	int cpu;
} opt = {.order = "seq", .step = 1, .seed = 1, .cpu = -1};

static int file;
static size_t size, pages;
static char *memory;
static uint32_t *order;
static uint64_t *took;
static size_t touches;

static uint64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

static void parse(int argc, char **argv)
{
	for (int c; (c = getopt(argc, argv, "r:s:emo:t:S:c:")) != -1;)
		switch (c) {
		case 'r': opt.file = optarg; break;
		case 's': opt.socket = optarg; break;
		case 'e': opt.source = EAGER; break;
		case 'm': opt.source = MAPPED; break;
		case 'o': opt.order = optarg; break;
		case 't': opt.step = atol(optarg); break;
		case 'S': opt.seed = atol(optarg); break;
		case 'c': opt.cpu = atoi(optarg); break;
		default: exit(2);
		}
}

/* warm has the host back as much memory as the handler is going to need. A page
 * that the host has yet to find costs several times what is measured here. */
static void warm(void)
{
	char *p = fresh(size);
	for (size_t at = 0; at < size; at += PAGE)
		((volatile char *)p)[at] = 1;
	munmap(p, size);
}

/* plan lays out the touches, so that nothing is allocated or faulted in later. */
static void plan(void)
{
	uint64_t x = opt.seed * 0x9E3779B97F4A7C15ULL + 1;
	touches = strcmp(opt.order, "none") ? pages / opt.step : 0;
	order = malloc((touches + 1) * sizeof *order);
	took = malloc((touches + 1) * sizeof *took);
	memset(took, 1, (touches + 1) * sizeof *took);
	for (size_t i = 0; i < touches; i++)
		order[i] = i * opt.step;
	if (strcmp(opt.order, "random"))
		return;
	for (size_t i = touches; i > 1; i--) {
		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		size_t j = x % i;
		uint32_t t = order[i - 1];
		order[i - 1] = order[j], order[j] = t;
	}
}

static int userfault(void)
{
	struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_EVENT_REMOVE};
	struct uffdio_register reg = {.range = {(uintptr_t)memory, size}, .mode = UFFDIO_REGISTER_MODE_MISSING};
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || ioctl(fd, UFFDIO_API, &api))
		DIE("open a userfaultfd");
	if (ioctl(fd, UFFDIO_REGISTER, &reg))
		DIE("register memory");
	return fd;
}

/* hand_over sends the region and the descriptor. The connection stays open. */
static void hand_over(int uffd)
{
	char text[256], control[CMSG_SPACE(sizeof uffd)] = {0};
	int n = snprintf(text, sizeof text,
		"[{\"base_host_virt_addr\":%lu,\"size\":%zu,\"offset\":0,\"page_size\":%lu,\"page_size_kib\":%lu}]",
		(unsigned long)memory, size, PAGE, PAGE);
	struct iovec iov = {text, n};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	struct sockaddr_un address = unix_address(opt.socket);
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (s < 0 || connect(s, (struct sockaddr *)&address, sizeof address))
		DIE("connect to %s", opt.socket);
	c->cmsg_level = SOL_SOCKET, c->cmsg_type = SCM_RIGHTS, c->cmsg_len = CMSG_LEN(sizeof uffd);
	memcpy(CMSG_DATA(c), &uffd, sizeof uffd);
	if (sendmsg(s, &m, 0) != n)
		DIE("send the handshake");
}

static void touch(uint64_t start)
{
	for (size_t i = 0; i < touches; i++) {
		((volatile char *)memory)[order[i] * PAGE];
		uint64_t t = now();
		took[i] = t - start;
		start = t;
	}
}

/* wait_resident asks the kernel which pages are there, which needs no faith in
 * what the handler says. It follows the first page that is not. */
static void wait_resident(void)
{
	unsigned char there[256];
	struct timespec pause = {.tv_nsec = 50000};
	for (size_t at = 0; at < pages;) {
		size_t n = pages - at < sizeof there ? pages - at : sizeof there, i = 0;
		if (mincore(memory + at * PAGE, n * PAGE, there))
			DIE("mincore");
		while (i < n && there[i] & 1)
			i++;
		at += i;
		if (i < n)
			nanosleep(&pause, 0);
	}
}

static void check(void)
{
	char *want = mmap(0, size, PROT_READ, MAP_SHARED, file, 0);
	if (want == MAP_FAILED)
		DIE("map %s", opt.file);
	for (size_t i = 0; i < pages; i++)
		if (memcmp(memory + i * PAGE, want + i * PAGE, PAGE)) {
			errno = EBADMSG;
			DIE("page %zu has wrong content", i);
		}
}

static int ascending(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return (x > y) - (x < y);
}

static unsigned long at_most(double share)
{
	return touches ? took[(size_t)(share * (touches - 1) + 0.5)] : 0;
}

static void report(uint64_t first, uint64_t touched, uint64_t resident)
{
	qsort(took, touches, sizeof *took, ascending);
	printf("{\"touches\":%zu,\"p50\":%lu,\"p90\":%lu,\"p99\":%lu,\"p999\":%lu,\"max\":%lu,"
		"\"first\":%lu,\"touched\":%lu,\"resident\":%lu,\"checked\":%zu}\n",
		touches, at_most(.5), at_most(.9), at_most(.99), at_most(.999), at_most(1),
		first, touched, resident, pages);
}

int main(int argc, char **argv)
{
	char go;
	int uffd = -1;
	parse(argc, argv);
	file = open_file(opt.file, &size);
	pages = size / PAGE;
	plan();
	warm();
	memory = opt.source != MAPPED ? fresh(size) : mmap(0, size, PROT_READ, MAP_PRIVATE, file, 0);
	if (memory == MAP_FAILED)
		DIE("map %s", opt.file);
	if (opt.source == HANDLER)
		uffd = userfault();
	pin(opt.cpu);
	puts("ready");
	fflush(stdout);
	if (read(0, &go, 1) != 1)
		DIE("wait for the word to go");

	uint64_t start = now(), touched, resident = 0;
	if (opt.source == HANDLER)
		hand_over(uffd);
	else if (opt.source == EAGER)
		read_whole(file, memory, size, 1 << 20);
	touch(start);
	touched = now() - start;
	if (!touches) {
		wait_resident();
		resident = now() - start;
	}
	uint64_t first = touches ? took[0] : 0;
	check();
	report(first, touched, resident);
	return 0;
}
