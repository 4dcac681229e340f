/* The floor: what a handler costs that does nothing but poll, read and copy k
 * pages from a buffer that is resident. No thread, no bookkeeping but the one bit
 * a block that a second fault on it needs.
 *
 *   handler SOCKET FILE K [CPU]
 *
 * It serves one client until it is killed. */
#include "common.h"
#include <poll.h>

static uint64_t base;
static size_t length;

static int listen_at(const char *path)
{
	struct sockaddr_un a = unix_address(path);
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (s < 0 || bind(s, (struct sockaddr *)&a, sizeof a) || listen(s, 1))
		DIE("listen at %s", path);
	return s;
}

/* receive takes the client's region and userfaultfd. The message is our own
 * client's, so it comes in one piece and in the order that it writes. */
static int receive(int listener)
{
	char text[512] = "", control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = {text, sizeof text - 1};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	int uffd, s = accept(listener, 0, 0);
	if (s < 0 || recvmsg(s, &m, MSG_CMSG_CLOEXEC) <= 0 || !CMSG_FIRSTHDR(&m))
		DIE("receive the handshake");
	memcpy(&uffd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof uffd);
	if (sscanf(text, "[{\"base_host_virt_addr\":%lu,\"size\":%zu", &base, &length) != 2)
		DIE("the handshake is %s", text);
	return uffd;
}

static void copy(int uffd, const char *content, size_t offset, size_t n)
{
	struct uffdio_copy c = {.dst = base + offset, .src = (uintptr_t)content + offset, .len = n};
	if (ioctl(uffd, UFFDIO_COPY, &c))
		DIE("copy %zu bytes at %zu", n, offset);
}

static void serve(int uffd, const char *content, size_t block)
{
	struct uffd_msg m;
	struct pollfd p = {.fd = uffd, .events = POLLIN};
	char *done = calloc(length / block + 1, 1);
	for (;;) {
		if (poll(&p, 1, -1) < 0)
			DIE("poll");
		if (read(uffd, &m, sizeof m) != sizeof m) {
			if (errno == EAGAIN)
				continue;
			DIE("read");
		}
		if (m.event != UFFD_EVENT_PAGEFAULT)
			continue;
		size_t number = (m.arg.pagefault.address - base) / block, offset = number * block;
		if (done[number])
			continue; /* the copy's wake-up was for this fault too */
		done[number] = 1;
		copy(uffd, content, offset, block < length - offset ? block : length - offset);
	}
}

int main(int argc, char **argv)
{
	size_t size;
	if (argc < 4)
		return 2;
	int file = open_file(argv[2], &size), listener = listen_at(argv[1]);
	char *content = fresh(size);
	read_whole(file, content, size, 1 << 20);
	pin(argc > 4 ? atoi(argv[4]) : -1);
	puts("ready");
	fflush(stdout);
	serve(receive(listener), content, atol(argv[3]) * PAGE);
}
