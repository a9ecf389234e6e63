# A Nomad job whose task has supervisor in front. Change my-server and the node's path to supervisor
# (/usr is part of the exec driver's chroot), then: nomad job run job.hcl
#
# Who restarts what: supervisor restarts the command, in place. Nomad restarts the task when supervisor has
# given up (--max-restarts, here after 3 minutes of failures) or does not answer, 3 times in an hour; then
# the allocation has failed and is placed on another node.
#
# Checked: it is parsed (python-hcl2), its keys are those of Nomad's documented job specification, and the
# words of config and of the checks are run. No nomad has read it: `nomad job validate job.hcl` first.
job "my-server" {
  type = "service"

  group "my-server" {
    restart {
      attempts = 3
      interval = "1h"
      delay    = "15s"
      mode     = "fail"
    }

    task "my-server" {
      driver = "exec"
      user   = "nobody"

      config {
        command = "/usr/local/bin/supervisor"
        args = [
          "--name=app",
          "--enable-heartbeat",
          "--heartbeat-file=/dev/shm/heartbeat",
          "--timeout=30",
          "--grace-period=10",
          "--max-backoff=30",
          "--max-restarts=10",
          "--",
          "/usr/local/bin/my-server",
        ]
      }

      # The driver gives each task a /dev/shm of its own, in memory.
      env {
        SUPERVISOR_RUNTIME_DIR = "/dev/shm/supervisor"
      }

      # Nomad would send SIGINT, after which the exit code is 130. The time is more than --grace-period and
      # the 5 seconds in which SIGKILL is waited for; above 30 s the node has to allow it (max_kill_timeout).
      kill_signal  = "SIGTERM"
      kill_timeout = "20s"

      resources {
        cpu    = 100
        memory = 128
      }

      # Only Consul runs checks of type script.
      service {
        name     = "my-server"
        provider = "consul"

        # Critical while the command starts, stops or waits for its restart: no requests are sent to it.
        check {
          name     = "command runs"
          type     = "script"
          command  = "/usr/local/bin/supervisor"
          args     = ["--status", "app"]
          interval = "10s"
          timeout  = "5s"
        }

        # 0 whatever the command does, 1 (a warning) where supervisor does not answer.
        check {
          name     = "supervisor answers"
          type     = "script"
          command  = "/usr/local/bin/supervisor"
          args     = ["--list"]
          interval = "10s"
          timeout  = "5s"

          check_restart {
            limit           = 3
            grace           = "30s"
            ignore_warnings = false
          }
        }
      }
    }
  }
}
