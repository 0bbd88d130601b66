# Completions of bash for wharf-runtime, and for it under the name of runc.
# A test keeps the lists below equal to what the program takes.

_wharf_runtime_containers() {
    local root=()
    local index
    for ((index = 1; index < COMP_CWORD; index++)); do
        case ${COMP_WORDS[index]} in
            --root) root=(--root "${COMP_WORDS[index + 1]}") ;;
            --root=*) root=("${COMP_WORDS[index]}") ;;
        esac
    done
    "${COMP_WORDS[0]}" "${root[@]}" list --quiet 2>/dev/null
}

_wharf_runtime_flags() {
    case $1 in
        '') echo '--debug --log --log-format --root --criu --systemd-cgroup --rootless --version --help' ;;
        create) echo '--bundle --console-socket --pidfd-socket --pid-file --no-pivot --no-new-keyring --preserve-fds --help' ;;
        run) echo '--bundle --console-socket --pidfd-socket --pid-file --no-pivot --no-new-keyring --preserve-fds --detach --keep --no-subreaper --help' ;;
        update) echo '--resources --blkio-weight --cpu-burst --cpu-idle --cpu-period --cpu-quota --cpu-rt-period --cpu-rt-runtime --cpu-share --cpuset-cpus --cpuset-mems --l3-cache-schema --mem-bw-schema --memory --memory-reservation --memory-swap --pids-limit --help' ;;
        checkpoint) echo '--image-path --work-path --tcp-established --ext-unix-sk --shell-job --lazy-pages --file-locks --manage-cgroups-mode --empty-ns --auto-dedup --parent-path --leave-running --tcp-skip-in-flight --link-remap --status-fd --page-server --pre-dump --help' ;;
        restore) echo '--image-path --work-path --tcp-established --ext-unix-sk --shell-job --lazy-pages --file-locks --manage-cgroups-mode --empty-ns --auto-dedup --console-socket --bundle --detach --pid-file --no-subreaper --no-pivot --lsm-profile --lsm-mount-context --help' ;;
        events) echo '--interval --stats --help' ;;
        exec) echo '--console-socket --pidfd-socket --cwd --env --tty --user --additional-gids --process --detach --pid-file --process-label --apparmor --no-new-privs --cap --preserve-fds --cgroup --ignore-paused --help' ;;
        kill) echo '--help' ;;
        delete) echo '--force --help' ;;
        list) echo '--format --quiet --help' ;;
        ps) echo '--format --help' ;;
        spec) echo '--bundle --rootless --help' ;;
        *) echo '--help' ;;
    esac
}

_wharf_runtime() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
    local commands='checkpoint create delete events exec features help kill list pause ps restore resume run spec start state update'
    local command='' index
    for ((index = 1; index < COMP_CWORD; index++)); do
        case ${COMP_WORDS[index]} in
            --log | --log-format | --root | --criu | --rootless) ((index++)) ;;
            -*) ;;
            *)
                command=${COMP_WORDS[index]}
                break
                ;;
        esac
    done
    case $before in
        --log | --process | -p | --pid-file | --console-socket | --pidfd-socket)
            mapfile -t COMPREPLY < <(compgen -f -- "$word")
            return
            ;;
        --root | --bundle | -b | --cwd | --image-path | --work-path)
            mapfile -t COMPREPLY < <(compgen -d -- "$word")
            return
            ;;
        --log-format)
            mapfile -t COMPREPLY < <(compgen -W 'text json' -- "$word")
            return
            ;;
        --format | -f)
            if [[ $command == list || $command == ps ]]; then
                mapfile -t COMPREPLY < <(compgen -W 'table json' -- "$word")
                return
            fi
            ;;
        --rootless)
            if [[ -z $command ]]; then
                mapfile -t COMPREPLY < <(compgen -W 'true false auto' -- "$word")
                return
            fi
            ;;
    esac
    if [[ $word == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(_wharf_runtime_flags "$command")" -- "$word")
    elif [[ -z $command ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$word")
    else
        case $command in
            create | run | restore | list | spec | features | help) ;;
            *) mapfile -t COMPREPLY < <(compgen -W "$(_wharf_runtime_containers)" -- "$word") ;;
        esac
    fi
}

complete -F _wharf_runtime wharf-runtime
