// Runs one program, and tells how long it took and how much memory it had at most.
//
//     measure RESULT PROGRAM [ARGUMENT...]
//
// RESULT gets "nanoseconds kibibytes". A program of its own, and a small one, because the kernel counts the pages of whoever
// calls execve to the peak of what is executed. The exit code is the program's.

#define _GNU_SOURCE
#include <spawn.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

int main(int argc, char **argv) {
    struct timespec begin, end;
    struct rusage usage;
    int status;
    pid_t pid;
    if (argc < 3)
        return 125;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    if (posix_spawnp(&pid, argv[2], NULL, NULL, argv + 2, environ) != 0)
        return 127;
    if (wait4(pid, &status, 0, &usage) != pid)
        return 125;
    clock_gettime(CLOCK_MONOTONIC, &end);
    FILE *result = fopen(argv[1], "w");
    if (!result)
        return 125;
    long long took = (end.tv_sec - begin.tv_sec) * 1000000000LL + (end.tv_nsec - begin.tv_nsec);
    fprintf(result, "%lld %ld\n", took, usage.ru_maxrss);
    if (fclose(result) != 0)
        return 125;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
