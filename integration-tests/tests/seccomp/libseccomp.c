/*
 * The reference that our filters are compared with: libseccomp, told what runc would tell it.
 *
 *   libseccomp names ARCH        every system call that it knows there: "NUMBER NAME"
 *   libseccomp filter < PROFILE  the filter
 *
 * PROFILE is lines of words: "native ARCH", "default ACTION", "arch ARCH", "tree", "name NAME", and for each rule
 * "rule ACTION NAME COUNT" with COUNT times "INDEX OPERATOR VALUE VALUE2" behind it. Actions are the kernel's numbers.
 *
 * The filter is written as lines "call ARCH NAME NUMBER" for each name, then "program" and its bytes. The exit
 * code is 3 when libseccomp refuses a rule: it contradicts another.
 */
#include <errno.h>
#include <inttypes.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
	const char *name;
	uint32_t token;
} archs[] = {
	{ "x86_64", SCMP_ARCH_X86_64 }, { "x86", SCMP_ARCH_X86 }, { "x32", SCMP_ARCH_X32 },
	{ "aarch64", SCMP_ARCH_AARCH64 }, { "arm", SCMP_ARCH_ARM },
};

static const char *const operators[] = { "NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ" };

static void fail(const char *what, int code)
{
	fprintf(stderr, "%s: %s\n", what, strerror(code < 0 ? -code : code));
	exit(code == -EEXIST ? 3 : 1);
}

static uint32_t arch(const char *name)
{
	for (size_t i = 0; i < sizeof(archs) / sizeof(*archs); i++)
		if (!strcmp(archs[i].name, name))
			return archs[i].token;
	fail(name, EINVAL);
	return 0;
}

static const char *spelling(uint32_t token)
{
	for (size_t i = 0; i < sizeof(archs) / sizeof(*archs); i++)
		if (archs[i].token == token)
			return archs[i].name;
	return "";
}

static enum scmp_compare operator(const char *name)
{
	for (size_t i = 0; i < sizeof(operators) / sizeof(*operators); i++)
		if (!strcmp(operators[i], name))
			return SCMP_CMP_NE + i;
	fail(name, EINVAL);
	return 0;
}

static int names(uint32_t token)
{
	for (int number = 0; number < 1024; number++) {
		int marked = token == SCMP_ARCH_X32 ? number | 0x40000000 : number;
		char *name = seccomp_syscall_resolve_num_arch(token, marked);
		if (name)
			printf("%d %s\n", number, name);
		free(name);
	}
	return 0;
}

static int filter(void)
{
	char line[65536], word[64];
	uint32_t used[8];
	size_t count = 0;
	scmp_filter_ctx context = NULL;
	char native[64] = "";

	while (fgets(line, sizeof(line), stdin)) {
		uint32_t action;
		unsigned conditions;
		int at, code = 0;

		if (sscanf(line, "native %63s", native) == 1) {
			used[count++] = arch(native);
		} else if (sscanf(line, "default %" SCNx32, &action) == 1) {
			context = seccomp_init(action);
			if (!context)
				fail("seccomp_init", EINVAL);
			if (used[0] != seccomp_arch_native()) {
				code = seccomp_arch_remove(context, SCMP_ARCH_NATIVE);
				if (!code)
					code = seccomp_arch_add(context, used[0]);
			}
		} else if (sscanf(line, "arch %63s", word) == 1) {
			used[count++] = arch(word);
			code = seccomp_arch_add(context, used[count - 1]);
		} else if (!strcmp(line, "tree\n")) {
			code = seccomp_attr_set(context, SCMP_FLTATR_CTL_OPTIMIZE, 2);
		} else if (sscanf(line, "rule %" SCNx32 " %63s %u%n", &action, word, &conditions, &at) == 3) {
			struct scmp_arg_cmp compare[6];
			int number = seccomp_syscall_resolve_name(word);

			for (unsigned i = 0; i < conditions; i++) {
				char name[16];
				int length;

				if (sscanf(line + at, " %u %15s %" SCNx64 " %" SCNx64 "%n", &compare[i].arg, name,
					   &compare[i].datum_a, &compare[i].datum_b, &length) != 4)
					fail(line, EINVAL);
				compare[i].op = operator(name);
				at += length;
			}
			if (number == __NR_SCMP_ERROR)
				fail(word, ENOSYS);
			code = seccomp_rule_add_array(context, action, number, conditions, compare);
		} else if (sscanf(line, "name %63s", word) == 1) {
			for (size_t i = 0; i < count; i++)
				printf("call %s %s %d\n", spelling(used[i]), word,
				       seccomp_syscall_resolve_name_arch(used[i], word));
		} else {
			fail(line, EINVAL);
		}
		if (code)
			fail(line, code);
	}
	printf("program\n");
	fflush(stdout);
	int code = seccomp_export_bpf(context, STDOUT_FILENO);
	if (code)
		fail("seccomp_export_bpf", code);
	seccomp_release(context);
	return 0;
}

int main(int count, char **arguments)
{
	if (count == 3 && !strcmp(arguments[1], "names"))
		return names(arch(arguments[2]));
	if (count == 2 && !strcmp(arguments[1], "filter"))
		return filter();
	fprintf(stderr, "usage: libseccomp names ARCH | libseccomp filter\n");
	return 2;
}
