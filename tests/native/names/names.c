/* Names for tests, put before the system's resolver with LD_PRELOAD.
 *
 * A host that ends in ".test" is looked up in the file NAMES_FILE, one "host address" a
 * line, read anew each time; one that is not there does not exist. Everything else goes to
 * the system. So a test moves a name the way an operator's DNS would, and the server under
 * test runs the code it always runs. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int lookup(const char *, const char *, const struct addrinfo *, struct addrinfo **);

int getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
                struct addrinfo **found) {
  lookup *system_lookup = (lookup *)dlsym(RTLD_NEXT, "getaddrinfo");
  size_t size = host == NULL ? 0 : strlen(host);
  if (size < 5 || strcmp(host + size - 5, ".test") != 0) {
    return system_lookup(host, port, hints, found);
  }
  FILE *names = fopen(getenv("NAMES_FILE"), "r");
  if (names == NULL) return EAI_AGAIN;
  char name[256], address[64];
  struct addrinfo *first = NULL, **last = &first;
  while (fscanf(names, "%255s %63s", name, address) == 2) {
    if (strcmp(name, host) != 0) continue;
    if (system_lookup(address, port, hints, last) != 0) continue;
    while (*last != NULL) last = &(*last)->ai_next;
  }
  fclose(names);
  *found = first;
  return first == NULL ? EAI_NONAME : 0;
}
