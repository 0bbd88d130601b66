# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_wharf_runtime_global_optspecs
    string join \n debug log= log-format= root= criu= systemd-cgroup rootless= v/version h/help
end

function __fish_wharf_runtime_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_wharf_runtime_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_wharf_runtime_using_subcommand
    set -l cmd (__fish_wharf_runtime_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c wharf-runtime -n "__fish_wharf_runtime_needs_command" -l log -d 'Where to write the log [default: standard error]' -r -F
complete -c wharf-runtime -n "__fish_wharf_runtime_needs_command" -l log-format -d 'How to write the log: text or json' -r
complete -c wharf-runtime -n "__fish_wharf_runtime_needs_command" -l root -d 'The directory of the containers\' state, on a tmpfs [default: /run/wharf-runtime]' -r -F
complete -c wharf-runtime -n "__fish_wharf_runtime_needs_command" -l criu -d 'The criu program, which makes checkpoints and restores them' -r -F
complete -c wharf-runtime -n "__fish_wharf_runtime_needs_command" -l rootless -d 'Whether to do without control groups that may not be made' -r -f -a "true\t''
false\t''
auto\t''"
complete -c wharf-runtime -n "__fish_wharf_runtime_needs_command" -l debug -d 'Also log what helps to find a fault'
complete -c wharf-runtime -n "__fish_wharf_runtime_needs_command" -l systemd-cgroup -d 'Let systemd make the control groups; linux.cgroupsPath is "slice:prefix:name" then'
complete -c wharf-runtime -n "__fish_wharf_runtime_needs_command" -s v -l version -d 'Print the version'
complete -c wharf-runtime -n "__fish_wharf_runtime_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c wharf-runtime -n "__fish_wharf_runtime_needs_command" -f -a "create" -d 'Create a container'
complete -c wharf-runtime -n "__fish_wharf_runtime_needs_command" -f -a "start" -d 'Run the program of a created container'
complete -c wharf-runtime -n "__fish_wharf_runtime_needs_command" -f -a "run" -d 'Create and start a container'
complete -c wharf-runtime -n "__fish_wharf_runtime_needs_command" -f -a "exec" -d 'Run another program in a running container'
complete -c wharf-runtime -n "__fish_wharf_runtime_needs_command" -f -a "kill" -d 'Send a signal to a container\'s first process'
complete -c wharf-runtime -n "__fish_wharf_runtime_needs_command" -f -a "delete" -d 'Remove what a container left'
complete -c wharf-runtime -n "__fish_wharf_runtime_needs_command" -f -a "state" -d 'Print a container\'s state'
complete -c wharf-runtime -n "__fish_wharf_runtime_needs_command" -f -a "list" -d 'List containers'
complete -c wharf-runtime -n "__fish_wharf_runtime_needs_command" -f -a "ps" -d 'List the processes in a container'
complete -c wharf-runtime -n "__fish_wharf_runtime_needs_command" -f -a "pause" -d 'Stop all processes of a container for a while'
complete -c wharf-runtime -n "__fish_wharf_runtime_needs_command" -f -a "resume" -d 'Let the processes of a paused container run again'
complete -c wharf-runtime -n "__fish_wharf_runtime_needs_command" -f -a "spec" -d 'Write an example configuration'
complete -c wharf-runtime -n "__fish_wharf_runtime_needs_command" -f -a "features" -d 'Print what this runtime can do'
complete -c wharf-runtime -n "__fish_wharf_runtime_needs_command" -f -a "checkpoint" -d 'Save a running container to files'
complete -c wharf-runtime -n "__fish_wharf_runtime_needs_command" -f -a "restore" -d 'Make a container again from what was saved'
complete -c wharf-runtime -n "__fish_wharf_runtime_needs_command" -f -a "events" -d 'Print a container\'s use of resources now and then, and when it ran out of memory'
complete -c wharf-runtime -n "__fish_wharf_runtime_needs_command" -f -a "update" -d 'Change a container\'s limits'
complete -c wharf-runtime -n "__fish_wharf_runtime_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand create" -s b -l bundle -d 'The bundle\'s directory [default: the working directory]' -r -F
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand create" -l console-socket -d 'A unix socket that receives the master of the container\'s terminal' -r -F
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand create" -l pidfd-socket -d 'A unix socket that receives a pidfd of the first process' -r -F
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand create" -l pid-file -d 'Where to write the first process\'s pid' -r -F
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand create" -l preserve-fds -d 'How many more descriptors to pass, from 3 on' -r
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand create" -l no-pivot -d 'Do not use pivot_root, for a root file system on a ramdisk'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand create" -l no-new-keyring -d 'Keep the caller\'s session keyring'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand create" -s h -l help -d 'Print help'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand start" -s h -l help -d 'Print help'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand run" -s b -l bundle -d 'The bundle\'s directory [default: the working directory]' -r -F
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand run" -l console-socket -d 'A unix socket that receives the master of the container\'s terminal' -r -F
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand run" -l pidfd-socket -d 'A unix socket that receives a pidfd of the first process' -r -F
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand run" -l pid-file -d 'Where to write the first process\'s pid' -r -F
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand run" -l preserve-fds -d 'How many more descriptors to pass, from 3 on' -r
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand run" -l no-pivot -d 'Do not use pivot_root, for a root file system on a ramdisk'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand run" -l no-new-keyring -d 'Keep the caller\'s session keyring'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand run" -s d -l detach -d 'Do not wait for the container'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand run" -l keep -d 'Do not remove the container when it ended'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand run" -l no-subreaper -d 'Do not adopt the processes that the container leaves behind'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand run" -s h -l help -d 'Print help'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand exec" -l console-socket -d 'A unix socket that receives the master of the terminal' -r -F
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand exec" -l pidfd-socket -d 'A unix socket that receives a pidfd of the process' -r -F
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand exec" -l cwd -d 'The working directory in the container' -r -F
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand exec" -s e -l env -d 'Set an environment variable' -r
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand exec" -s u -l user -d 'The ids to run with' -r
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand exec" -s g -l additional-gids -d 'Another group id' -r
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand exec" -s p -l process -d 'A file with the OCI process object to use' -r -F
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand exec" -l pid-file -d 'Where to write the pid' -r -F
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand exec" -l process-label -d 'The SELinux label to run with' -r
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand exec" -l apparmor -d 'The AppArmor profile to run with' -r
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand exec" -l no-new-privs -d 'Never gain privileges by executing a program' -r -f -a "true\t''
false\t''"
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand exec" -s c -l cap -d 'Add a capability' -r
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand exec" -l preserve-fds -d 'How many more descriptors to pass, from 3 on' -r
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand exec" -l cgroup -d 'A control group below the container\'s to run in, which is there already' -r
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand exec" -s t -l tty -d 'Give the process a terminal'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand exec" -s d -l detach -d 'Do not wait for the process'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand exec" -l ignore-paused -d 'Also in a paused container'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand exec" -s h -l help -d 'Print help'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand kill" -s a -l all -d 'Succeed also when the container is stopped (obsolete)'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand kill" -s h -l help -d 'Print help'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand delete" -s f -l force -d 'Kill the container first if it still runs; no error if there is none'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand delete" -s h -l help -d 'Print help'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand state" -s h -l help -d 'Print help'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand list" -s f -l format -d 'How to print: table or json' -r
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand list" -s q -l quiet -d 'Print names only'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand list" -s h -l help -d 'Print help'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand ps" -s f -l format -d 'How to print: table or json' -r
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand ps" -s h -l help -d 'Print help'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand pause" -s h -l help -d 'Print help'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand resume" -s h -l help -d 'Print help'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand spec" -s b -l bundle -d 'The bundle\'s directory [default: the working directory]' -r -F
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand spec" -l rootless -d 'For a user without privileges'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand spec" -s h -l help -d 'Print help'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand features" -s h -l help -d 'Print help'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand checkpoint" -l image-path -d 'The directory of the checkpoint [default: checkpoint]' -r -F
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand checkpoint" -l work-path -d 'Where criu writes its log and statistics [default: the directory of the checkpoint]' -r -F
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand checkpoint" -l manage-cgroups-mode -d 'How to treat control groups: soft, full, strict or ignore [default: soft]' -r
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand checkpoint" -l empty-ns -d 'Make a namespace without restoring what is in it: network, which is always done so' -r
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand checkpoint" -l parent-path -d 'An earlier checkpoint, relative to the directory of this one' -r -F
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand checkpoint" -l status-fd -d 'Where to write a zero byte when the lazy pages are ready' -r
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand checkpoint" -l page-server -d 'Send memory to the page server at ADDRESS:PORT' -r
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand checkpoint" -l tcp-established -d 'Keep established TCP connections'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand checkpoint" -l ext-unix-sk -d 'Unix sockets may be connected with sockets outside the container'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand checkpoint" -l shell-job -d 'The container may have a terminal of its caller\'s'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand checkpoint" -l lazy-pages -d 'Move memory when it is needed; "criu lazy-pages" has to be run beside'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand checkpoint" -l file-locks -d 'Keep file locks'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand checkpoint" -l auto-dedup -d 'Free memory of an earlier checkpoint that is in a later one'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand checkpoint" -l leave-running -d 'Let the container run on'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand checkpoint" -l tcp-skip-in-flight -d 'Leave out TCP connections that are not established yet'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand checkpoint" -l link-remap -d 'Give a name to open files that have none any more'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand checkpoint" -l pre-dump -d 'Save the memory only, and let the container run on'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand checkpoint" -s h -l help -d 'Print help'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand restore" -l image-path -d 'The directory of the checkpoint [default: checkpoint]' -r -F
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand restore" -l work-path -d 'Where criu writes its log and statistics [default: the directory of the checkpoint]' -r -F
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand restore" -l manage-cgroups-mode -d 'How to treat control groups: soft, full, strict or ignore [default: soft]' -r
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand restore" -l empty-ns -d 'Make a namespace without restoring what is in it: network, which is always done so' -r
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand restore" -l console-socket -d 'A unix socket that receives the master of the container\'s terminal' -r -F
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand restore" -s b -l bundle -d 'The bundle\'s directory [default: the working directory]' -r -F
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand restore" -l pid-file -d 'Where to write the first process\'s pid' -r -F
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand restore" -l lsm-profile -d 'A security profile in place of the one that was saved, as TYPE:NAME' -r
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand restore" -l lsm-mount-context -d 'A security context for mounts in place of the one that was saved' -r
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand restore" -l tcp-established -d 'Keep established TCP connections'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand restore" -l ext-unix-sk -d 'Unix sockets may be connected with sockets outside the container'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand restore" -l shell-job -d 'The container may have a terminal of its caller\'s'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand restore" -l lazy-pages -d 'Move memory when it is needed; "criu lazy-pages" has to be run beside'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand restore" -l file-locks -d 'Keep file locks'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand restore" -l auto-dedup -d 'Free memory of an earlier checkpoint that is in a later one'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand restore" -s d -l detach -d 'Do not wait for the container'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand restore" -l no-subreaper -d 'Do not adopt the processes that the container leaves behind'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand restore" -l no-pivot -d 'Taken for the sake of callers who say it with every command: criu changes the root its own way'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand restore" -s h -l help -d 'Print help'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand events" -l interval -d 'How often to print what is in use (1m30s, 500ms)' -r
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand events" -l stats -d 'Print what is in use once'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand events" -s h -l help -d 'Print help'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand update" -s r -l resources -d 'A file with an OCI resources object, or - for standard input: what it does not name is unchanged, and of the other flags only those about Intel RDT count' -r -F
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand update" -l blkio-weight -d 'Relative weight for block devices, 10 to 1000' -r
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand update" -l cpu-period -d 'Period of the CPU quota in microseconds; 0 for the system\'s default' -r
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand update" -l cpu-quota -d 'CPU time in microseconds a period' -r
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand update" -l cpu-burst -d 'Unused CPU time in microseconds that may be spent on top' -r
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand update" -l cpu-share -d 'CPU shares: the weight against other containers' -r
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand update" -l cpu-rt-period -d 'Period of the realtime limit in microseconds; 0 for the system\'s default' -r
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand update" -l cpu-rt-runtime -d 'Realtime CPU time in microseconds a period' -r
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand update" -l cpuset-cpus -d 'The CPUs to use' -r
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand update" -l cpuset-mems -d 'The memory nodes to use' -r
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand update" -l kernel-memory -d 'Obsolete: the kernel has no such limit any more' -r
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand update" -l kernel-memory-tcp -d 'Obsolete likewise' -r
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand update" -l memory -d 'Memory' -r
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand update" -l cpu-idle -d '1 to give the container only CPU time that nobody else wants' -r
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand update" -l memory-reservation -d 'Soft limit of memory' -r
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand update" -l memory-swap -d 'Memory and swap together; -1 for any amount of swap' -r
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand update" -l pids-limit -d 'The most processes; 0 counts as 1, -1 for any number' -r
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand update" -l l3-cache-schema -d 'Intel RDT\'s schema of L3 caches' -r
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand update" -l mem-bw-schema -d 'Intel RDT\'s schema of memory bandwidth' -r
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand update" -s h -l help -d 'Print help'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand help; and not __fish_seen_subcommand_from create start run exec kill delete state list ps pause resume spec features checkpoint restore events update help" -f -a "create" -d 'Create a container'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand help; and not __fish_seen_subcommand_from create start run exec kill delete state list ps pause resume spec features checkpoint restore events update help" -f -a "start" -d 'Run the program of a created container'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand help; and not __fish_seen_subcommand_from create start run exec kill delete state list ps pause resume spec features checkpoint restore events update help" -f -a "run" -d 'Create and start a container'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand help; and not __fish_seen_subcommand_from create start run exec kill delete state list ps pause resume spec features checkpoint restore events update help" -f -a "exec" -d 'Run another program in a running container'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand help; and not __fish_seen_subcommand_from create start run exec kill delete state list ps pause resume spec features checkpoint restore events update help" -f -a "kill" -d 'Send a signal to a container\'s first process'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand help; and not __fish_seen_subcommand_from create start run exec kill delete state list ps pause resume spec features checkpoint restore events update help" -f -a "delete" -d 'Remove what a container left'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand help; and not __fish_seen_subcommand_from create start run exec kill delete state list ps pause resume spec features checkpoint restore events update help" -f -a "state" -d 'Print a container\'s state'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand help; and not __fish_seen_subcommand_from create start run exec kill delete state list ps pause resume spec features checkpoint restore events update help" -f -a "list" -d 'List containers'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand help; and not __fish_seen_subcommand_from create start run exec kill delete state list ps pause resume spec features checkpoint restore events update help" -f -a "ps" -d 'List the processes in a container'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand help; and not __fish_seen_subcommand_from create start run exec kill delete state list ps pause resume spec features checkpoint restore events update help" -f -a "pause" -d 'Stop all processes of a container for a while'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand help; and not __fish_seen_subcommand_from create start run exec kill delete state list ps pause resume spec features checkpoint restore events update help" -f -a "resume" -d 'Let the processes of a paused container run again'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand help; and not __fish_seen_subcommand_from create start run exec kill delete state list ps pause resume spec features checkpoint restore events update help" -f -a "spec" -d 'Write an example configuration'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand help; and not __fish_seen_subcommand_from create start run exec kill delete state list ps pause resume spec features checkpoint restore events update help" -f -a "features" -d 'Print what this runtime can do'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand help; and not __fish_seen_subcommand_from create start run exec kill delete state list ps pause resume spec features checkpoint restore events update help" -f -a "checkpoint" -d 'Save a running container to files'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand help; and not __fish_seen_subcommand_from create start run exec kill delete state list ps pause resume spec features checkpoint restore events update help" -f -a "restore" -d 'Make a container again from what was saved'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand help; and not __fish_seen_subcommand_from create start run exec kill delete state list ps pause resume spec features checkpoint restore events update help" -f -a "events" -d 'Print a container\'s use of resources now and then, and when it ran out of memory'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand help; and not __fish_seen_subcommand_from create start run exec kill delete state list ps pause resume spec features checkpoint restore events update help" -f -a "update" -d 'Change a container\'s limits'
complete -c wharf-runtime -n "__fish_wharf_runtime_using_subcommand help; and not __fish_seen_subcommand_from create start run exec kill delete state list ps pause resume spec features checkpoint restore events update help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
