/* Looks names up with the resolver of the C library that it is linked with, as most programs in pods do: one line a name, which is the name and its
 * addresses, sorted, or `none`, or the error of getaddrinfo(3). `-4`, `-6` and `-a` say of which family those of the names after it are. */
#define _GNU_SOURCE /* EAI_NODATA of glibc */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define MOST 256

static int by_text(const void *a, const void *b) { return strcmp(a, b); }

static int is_absence(int error)
{
#ifdef EAI_NODATA
	if (error == EAI_NODATA)
		return 1;
#endif
	return error == EAI_NONAME;
}

static void look_up(const char *name, int family)
{
	struct addrinfo hints = {.ai_family = family, .ai_socktype = SOCK_STREAM}, *all = NULL;
	static char texts[MOST][INET6_ADDRSTRLEN];
	size_t count = 0;
	int error = getaddrinfo(name, NULL, &hints, &all);

	printf("%s", name);
	if (error != 0)
		printf(" %s", is_absence(error) ? "none" : gai_strerror(error));
	for (struct addrinfo *one = all; one != NULL && count < MOST; one = one->ai_next) {
		const void *address = one->ai_family == AF_INET
			? (const void *)&((struct sockaddr_in *)one->ai_addr)->sin_addr
			: (const void *)&((struct sockaddr_in6 *)one->ai_addr)->sin6_addr;
		if (inet_ntop(one->ai_family, address, texts[count], sizeof texts[count]) != NULL)
			count++;
	}
	qsort(texts, count, sizeof texts[0], by_text);
	for (size_t index = 0; index < count; index++)
		printf(" %s", texts[index]);
	printf("\n");
	if (all != NULL)
		freeaddrinfo(all);
}

int main(int argc, char **argv)
{
	int family = AF_UNSPEC;

	for (int index = 1; index < argc; index++) {
		if (strcmp(argv[index], "-4") == 0)
			family = AF_INET;
		else if (strcmp(argv[index], "-6") == 0)
			family = AF_INET6;
		else if (strcmp(argv[index], "-a") == 0)
			family = AF_UNSPEC;
		else
			look_up(argv[index], family);
	}
	return 0;
}
