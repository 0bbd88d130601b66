// What a container costs at least: the system calls that make the one of `wharf-runtime spec`, and nothing else.
//
// The container's state is recorded while it lives, which the specification demands too: another process may ask for it. No
// configuration is read, no path is checked, and no failure is told but by the line it happened in.
//
//     floor ROOTFS STATES ID GROUP... -- PROGRAM [ARGUMENT...]
//
// STATES is the directory in which states are. Each GROUP is the directory of a hierarchy below which the container's group is made.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sched.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(call) do { if ((call) < 0) { dprintf(2, "floor:%d: %s: %m\n", __LINE__, #call); _exit(125); } } while (0)

enum { MAX_GROUPS = 32, PATH = 512 };

static char groups[MAX_GROUPS][PATH];
static int tasks[MAX_GROUPS];
static int count, unified = -1;
static char root[PATH];

static void put(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    CHECK(fd);
    CHECK(write(fd, text, strlen(text)));
    close(fd);
}

static void copy(const char *from, const char *to, const char *name) {
    char path[PATH + 32], value[256];
    snprintf(path, sizeof path, "%s/%s", from, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd);
    ssize_t length = read(fd, value, sizeof value - 1);
    CHECK(length);
    value[length] = 0;
    close(fd);
    snprintf(path, sizeof path, "%s/%s", to, name);
    put(path, value);
}

// The group of one hierarchy, with what its controller needs before a process can be in it.
static void make_group(const char *above, const char *id) {
    static const char *devices[] = {"c *:* m", "b *:* m", "c 1:3 rwm", "c 1:8 rwm", "c 1:7 rwm", "c 5:0 rwm", "c 1:5 rwm",
                                    "c 1:9 rwm", "c 136:* rwm", "c 5:2 rwm", "c 10:200 rwm"};
    char path[PATH + 32];
    char *group = groups[count];
    snprintf(group, PATH, "%s/%s", above, id);
    CHECK(mkdir(group, 0755));
    if (strstr(above, "/cpuset")) {
        copy(above, group, "cpuset.cpus");
        copy(above, group, "cpuset.mems");
    }
    if (strstr(above, "/devices")) {
        snprintf(path, sizeof path, "%s/devices.deny", group);
        put(path, "a *:* rwm");
        snprintf(path, sizeof path, "%s/devices.allow", group);
        int fd = open(path, O_WRONLY | O_CLOEXEC);
        CHECK(fd);
        for (size_t i = 0; i < sizeof devices / sizeof *devices; i++)
            CHECK(write(fd, devices[i], strlen(devices[i])));
        close(fd);
    }
    if (strstr(above, "/unified") || strcmp(above, "/sys/fs/cgroup") == 0) {
        unified = count;
        CHECK(tasks[count] = open(group, O_PATH | O_DIRECTORY | O_CLOEXEC));
    } else {
        snprintf(path, sizeof path, "%s/tasks", group);
        CHECK(tasks[count] = open(path, O_WRONLY | O_CLOEXEC));
    }
    count++;
}

static const char *in(const char *path) {
    static char at[2 * PATH];
    snprintf(at, sizeof at, "%s%s", root, path);
    return at;
}

static void loopback(void) {
    struct { struct nlmsghdr head; struct ifinfomsg body; } request = {
        .head = {.nlmsg_len = sizeof request, .nlmsg_type = RTM_NEWLINK, .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
        .body = {.ifi_index = 1, .ifi_flags = IFF_UP, .ifi_change = IFF_UP},
    };
    char answer[256];
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    CHECK(fd);
    CHECK(send(fd, &request, sizeof request, 0));
    CHECK(recv(fd, answer, sizeof answer, 0));
    close(fd);
}

static void mounts(void) {
    const unsigned long usual = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    char path[PATH];
    CHECK(mount("proc", in("/proc"), "proc", 0, NULL));
    CHECK(mount("tmpfs", in("/dev"), "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k"));
    CHECK(mkdir(in("/dev/pts"), 0755));
    CHECK(mount("devpts", in("/dev/pts"), "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"));
    CHECK(mkdir(in("/dev/shm"), 0755));
    CHECK(mount("shm", in("/dev/shm"), "tmpfs", usual, "mode=1777,size=65536k"));
    CHECK(mkdir(in("/dev/mqueue"), 0755));
    CHECK(mount("mqueue", in("/dev/mqueue"), "mqueue", usual, NULL));
    CHECK(mount("sysfs", in("/sys"), "sysfs", usual | MS_RDONLY, NULL));
    CHECK(mount("tmpfs", in("/sys/fs/cgroup"), "tmpfs", usual, "mode=755"));
    for (int i = 0; i < count; i++) {
        if (i == unified)
            continue;
        // /sys/fs/cgroup/NAME/...: the container sees its group as NAME.
        const char *name = groups[i] + strlen("/sys/fs/cgroup/");
        snprintf(path, sizeof path, "/sys/fs/cgroup/%.*s", (int)strcspn(name, "/"), name);
        CHECK(mkdir(in(path), 0755));
        CHECK(mount(groups[i], in(path), NULL, MS_BIND, NULL));
        CHECK(mount(NULL, in(path), NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_RELATIME | usual, NULL));
    }
    CHECK(mount(NULL, in("/sys/fs/cgroup"), NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_RELATIME | usual, NULL));
}

static void devices(void) {
    static const struct { const char *path; int major, minor; } nodes[] = {
        {"/dev/null", 1, 3}, {"/dev/random", 1, 8}, {"/dev/full", 1, 7},
        {"/dev/tty", 5, 0},  {"/dev/zero", 1, 5},   {"/dev/urandom", 1, 9},
    };
    static const char *links[][2] = {
        {"/proc/self/fd", "/dev/fd"},       {"/proc/self/fd/0", "/dev/stdin"}, {"/proc/self/fd/1", "/dev/stdout"},
        {"/proc/self/fd/2", "/dev/stderr"}, {"/proc/kcore", "/dev/core"},      {"pts/ptmx", "/dev/ptmx"},
    };
    for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++)
        CHECK(mknod(in(nodes[i].path), S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)));
    for (size_t i = 0; i < sizeof links / sizeof *links; i++)
        CHECK(symlink(links[i][0], in(links[i][1])));
}

// In the container's root.
static void masks(void) {
    static const char *masked[] = {"/proc/acpi",        "/proc/asound",     "/proc/kcore",       "/proc/keys",
                                   "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug",
                                   "/sys/firmware",     "/proc/scsi"};
    static const char *fixed[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"};
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) {
        if (mount(fixed[i], fixed[i], NULL, MS_BIND | MS_REC, NULL) < 0) {
            CHECK(errno == ENOENT ? 0 : -1);
            continue;
        }
        CHECK(mount(NULL, fixed[i], NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_RELATIME, NULL));
    }
    for (size_t i = 0; i < sizeof masked / sizeof *masked; i++) {
        if (mount("/dev/null", masked[i], NULL, MS_BIND, NULL) == 0 || errno == ENOENT)
            continue;
        CHECK(errno == ENOTDIR ? 0 : -1);
        CHECK(mount("tmpfs", masked[i], "tmpfs", MS_RDONLY, "nr_blocks=1,nr_inodes=1"));
    }
}

static void drop(void) {
    const uint32_t kept = 1u << CAP_KILL | 1u << CAP_NET_BIND_SERVICE | 1u << CAP_AUDIT_WRITE;
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[2] = {{.effective = kept, .permitted = kept}};
    struct rlimit files = {1024, 1024};
    CHECK(setrlimit(RLIMIT_NOFILE, &files));
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    for (int capability = 0; capability <= CAP_LAST_CAP; capability++)
        if (capability > 31 || !(kept >> capability & 1))
            CHECK(prctl(PR_CAPBSET_DROP, capability, 0, 0, 0));
    CHECK(syscall(SYS_setgroups, 0, NULL));
    CHECK(syscall(SYS_capset, &head, sets));
}

// What the specification's "state" has to answer.
static void record(const char *state, const char *id, pid_t pid) {
    char text[3 * PATH];
    snprintf(text, sizeof text,
             "{\"ociVersion\":\"1.2.0\",\"id\":\"%s\",\"status\":\"created\",\"pid\":%d,\"bundle\":\"%s\"}", id, (int)pid,
             root);
    int fd = open(state, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    CHECK(fd);
    CHECK(write(fd, text, strlen(text)));
    close(fd);
}

static void child(int gate, char **program) {
    char go;
    for (int i = 0; i < count; i++)
        if (i != unified)
            CHECK(write(tasks[i], "0", 1));
    CHECK(setsid());
    CHECK(syscall(SYS_keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, "_ses.floor"));
    loopback();
    CHECK(sethostname("runc", 4));
    CHECK(mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL));
    CHECK(mount(root, root, NULL, MS_BIND | MS_REC, NULL));
    umask(0);
    mounts();
    devices();
    CHECK(chdir(root));
    CHECK(mount(NULL, ".", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_RELATIME, NULL));
    CHECK(syscall(SYS_pivot_root, ".", "."));
    CHECK(mount(NULL, ".", NULL, MS_SLAVE | MS_REC, NULL));
    CHECK(umount2(".", MNT_DETACH));
    CHECK(chdir("/"));
    masks();
    drop();
    umask(022);
    // Created; now it waits to be started.
    CHECK(write(gate, "", 1));
    CHECK(read(gate, &go, 1));
    CHECK(syscall(SYS_close_range, 3, ~0u, 4 /* CLOSE_RANGE_CLOEXEC */));
    execv(program[0], program);
    CHECK(-1);
}

int main(int argc, char **argv) {
    int at = 4, status, gate[2];
    char ready, directory[PATH], state[PATH + 16];
    if (argc < 6)
        return 125;
    const char *id = argv[3];
    if (!realpath(argv[1], root))
        return 125;
    snprintf(directory, sizeof directory, "%s/%s", argv[2], id);
    snprintf(state, sizeof state, "%s/state.json", directory);
    CHECK(mkdir(directory, 0700));
    for (; at < argc && strcmp(argv[at], "--"); at++)
        make_group(argv[at], id);
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, gate));
    struct clone_args clone = {
        .flags = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET,
        .exit_signal = SIGCHLD,
    };
    if (unified >= 0) {
        clone.flags |= 0x200000000ULL; // CLONE_INTO_CGROUP
        clone.cgroup = tasks[unified];
    }
    pid_t pid = syscall(SYS_clone3, &clone, sizeof clone);
    CHECK(pid);
    if (pid == 0)
        child(gate[1], argv + at + 1);
    close(gate[1]);
    record(state, id, pid);
    if (read(gate[0], &ready, 1) != 1)
        return 125;
    CHECK(write(gate[0], "", 1));
    CHECK(waitpid(pid, &status, 0));
    for (int i = 0; i < count; i++)
        CHECK(rmdir(groups[i]));
    CHECK(unlink(state));
    CHECK(rmdir(directory));
    return WIFEXITED(status) ? WEXITSTATUS(status) : 125;
}
