"""The thread pool and the plan executor, as LLVM IR (there is no compiled extension).

**Jobs count chunks, not workers.**  A job is announced by its fields, then by the number of chunks
still to hand out (``next``).  Whoever decrements ``next`` from a positive value owns that chunk; a
worker that comes late finds either the current job or nothing, so nobody waits for a sleeper.

Idle workers spin for a moment on ``epoch`` and then sleep on it in the kernel (futex).  A caller
that finds the pool taken by another thread runs its job by itself.

The state block (one page, zeroed, at a page boundary, never freed), offsets in bytes::

    0    epoch    i32  number of jobs announced          192  function  ptr
    64   done     i64  chunks finished                   200  args      ptr
    128  sleepers i32                                    208  count     i64  tasks
    256  next     i64  chunks to hand out                216  grain     i64  tasks per chunk
    320  started  i32  threads that exist                224  chunks    i64
    324  active   i32  threads that may work             328  lock      i32
    332  spin     i32  pauses before sleeping
"""

from __future__ import annotations

STARTED, LOCK, SPIN = 320, 328, 332
SLEEPERS, NEXT = 128, 256
STATE_SIZE = 4096

FUNCTIONS = ("parallel_for", "execute", "execute_method", "set_active", "pause_for")

# Number of the futex system call, and the instruction that makes a spinning thread polite.
_MACHINES = {
    "x86_64": ("202", "void @llvm.x86.sse2.pause()"),
    "aarch64": ("98", "void @llvm.aarch64.isb(i32 15)"),
}


def pool_ir(machine: str) -> str:
    """The module for ``platform.machine()``; it defines `FUNCTIONS`."""
    futex, pause = _MACHINES[{"AMD64": "x86_64", "arm64": "aarch64"}.get(machine, machine)]
    declaration = f"declare {pause.replace('i32 15', 'i32')}\n"
    return declaration + _IR.replace("FUTEX", futex).replace("PAUSE", f"call {pause}")


# Signals stay with the threads of the interpreter, except those that a fault raises itself
# (ILL, TRAP, ABRT, BUS, FPE, SEGV), so that faulthandler still reports them.
_BLOCKED_SIGNALS = ~sum(1 << (signal - 1) for signal in (4, 5, 6, 7, 8, 11))

_IR = f"""
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_detach(i64)
declare i32 @pthread_sigmask(i32, ptr, ptr)
declare i64 @syscall(i64, ...)
declare i32 @sched_yield()
declare ptr @PyLong_AsVoidPtr(ptr)
declare ptr @PyErr_Occurred()
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare void @Py_IncRef(ptr)

; Runs chunks of the current job until none is left.
define internal void @work(ptr %state) nounwind {{
entry:
  %done = getelementptr i8, ptr %state, i64 64
  %next = getelementptr i8, ptr %state, i64 256
  br label %claim
claim:
  %left = atomicrmw sub ptr %next, i64 1 acq_rel, align 8
  %owned = icmp sgt i64 %left, 0
  br i1 %owned, label %chunk, label %finished
chunk:
  %function.at = getelementptr i8, ptr %state, i64 192
  %function = load ptr, ptr %function.at, align 8
  %args.at = getelementptr i8, ptr %state, i64 200
  %args = load ptr, ptr %args.at, align 8
  %count.at = getelementptr i8, ptr %state, i64 208
  %count = load i64, ptr %count.at, align 8
  %grain.at = getelementptr i8, ptr %state, i64 216
  %grain = load i64, ptr %grain.at, align 8
  %chunks.at = getelementptr i8, ptr %state, i64 224
  %chunks = load i64, ptr %chunks.at, align 8
  %number = sub i64 %chunks, %left
  %begin = mul i64 %number, %grain
  %unclipped = add i64 %begin, %grain
  %inside = icmp slt i64 %unclipped, %count
  %end = select i1 %inside, i64 %unclipped, i64 %count
  call void %function(ptr %args, i64 %begin, i64 %end)
  %before = atomicrmw add ptr %done, i64 1 release, align 8
  br label %claim
finished:
  ret void
}}

; A thread's life.  The argument is the state's address plus the thread's number.
define internal ptr @worker(ptr %argument) nounwind {{
entry:
  %bits = ptrtoint ptr %argument to i64
  %wide = and i64 %bits, 4095
  %number = trunc i64 %wide to i32
  %base = and i64 %bits, -4096
  %state = inttoptr i64 %base to ptr
  %sleepers = getelementptr i8, ptr %state, i64 128
  %active.at = getelementptr i8, ptr %state, i64 324
  %spin.at = getelementptr i8, ptr %state, i64 332
  br label %wait
wait:
  %seen = phi i32 [0, %entry], [%now, %working]
  %limit = phi i32 [0, %entry], [%spin, %working]
  br label %spinning
spinning:
  %turn = phi i32 [0, %wait], [%turn.next, %pausing]
  %epoch = load atomic i32, ptr %state acquire, align 4
  %changed = icmp ne i32 %epoch, %seen
  br i1 %changed, label %woken, label %count.turn
count.turn:
  %more = icmp slt i32 %turn, %limit
  br i1 %more, label %pausing, label %sleep
pausing:
  PAUSE
  %turn.next = add i32 %turn, 1
  br label %spinning
sleep:
  %s1 = atomicrmw add ptr %sleepers, i32 1 seq_cst, align 4
  br label %sleeping
sleeping:
  %epoch2 = load atomic i32, ptr %state seq_cst, align 4
  %changed2 = icmp ne i32 %epoch2, %seen
  br i1 %changed2, label %awake, label %futex.wait
futex.wait:
  %r = call i64 (i64, ...) @syscall(
    i64 FUTEX, ptr %state, i32 128, i32 %seen, ptr null, ptr null, i32 0)
  br label %sleeping
awake:
  %s2 = atomicrmw sub ptr %sleepers, i32 1 seq_cst, align 4
  br label %woken
woken:
  %now = load atomic i32, ptr %state acquire, align 4
  %active = load atomic i32, ptr %active.at monotonic, align 4
  %mine = icmp slt i32 %number, %active
  br i1 %mine, label %working, label %parked
parked:
  ; More threads exist than are wanted: sleep on another word, where no job wakes this one.
  %p = call i64 (i64, ...) @syscall(
    i64 FUTEX, ptr %active.at, i32 128, i32 %active, ptr null, ptr null, i32 0)
  br label %woken
working:
  call void @work(ptr %state)
  %spin = load atomic i32, ptr %spin.at monotonic, align 4
  br label %wait
}}

; Starts the threads that are missing; called with the lock held.
define internal void @start_threads(ptr %state) nounwind noinline {{
entry:
  %thread = alloca i64, align 8
  %blocked = alloca [16 x i64], align 8
  %old = alloca [16 x i64], align 8
  store [16 x i64] zeroinitializer, ptr %blocked, align 8
  store i64 {_BLOCKED_SIGNALS}, ptr %blocked, align 8
  %m1 = call i32 @pthread_sigmask(i32 0, ptr %blocked, ptr %old)
  %started.at = getelementptr i8, ptr %state, i64 320
  %active.at = getelementptr i8, ptr %state, i64 324
  br label %head
head:
  %started = load i32, ptr %started.at, align 4
  %active = load atomic i32, ptr %active.at monotonic, align 4
  %missing = icmp slt i32 %started, %active
  br i1 %missing, label %create, label %done
create:
  %wide = sext i32 %started to i64
  %argument = getelementptr i8, ptr %state, i64 %wide
  %failed = call i32 @pthread_create(ptr %thread, ptr null, ptr @worker, ptr %argument)
  %ok = icmp eq i32 %failed, 0
  br i1 %ok, label %created, label %refused
created:
  %handle = load i64, ptr %thread, align 8
  %d = call i32 @pthread_detach(i64 %handle)
  %one.more = add i32 %started, 1
  store i32 %one.more, ptr %started.at, align 4
  br label %head
refused:
  ; The system gives no more threads: go on with those that exist.
  store atomic i32 %started, ptr %active.at monotonic, align 4
  br label %done
done:
  %m2 = call i32 @pthread_sigmask(i32 2, ptr %old, ptr null)
  ret void
}}

define void @parallel_for(ptr %state, ptr %function, ptr %args, i64 %count, i64 %grain) nounwind {{
entry:
  %active.at = getelementptr i8, ptr %state, i64 324
  %active = load atomic i32, ptr %active.at monotonic, align 4
  %alone = icmp eq i32 %active, 0
  %small = icmp sle i64 %count, %grain
  %sequential = or i1 %alone, %small
  br i1 %sequential, label %run.alone, label %take
take:
  %lock.at = getelementptr i8, ptr %state, i64 328
  %pair = cmpxchg ptr %lock.at, i32 0, i32 1 acquire monotonic, align 4
  %taken = extractvalue {{i32, i1}} %pair, 1
  br i1 %taken, label %have, label %run.alone
run.alone:
  %some = icmp sgt i64 %count, 0
  br i1 %some, label %run.some, label %return
run.some:
  call void %function(ptr %args, i64 0, i64 %count)
  br label %return
have:
  %started.at = getelementptr i8, ptr %state, i64 320
  %started = load i32, ptr %started.at, align 4
  %missing = icmp slt i32 %started, %active
  br i1 %missing, label %start, label %announce
start:
  call void @start_threads(ptr %state)
  br label %announce
announce:
  ; At most 64 chunks per thread, each a multiple of the grain.
  %least = call i64 @llvm.smax.i64(i64 %grain, i64 1)
  %threads.narrow = add i32 %active, 1
  %threads = sext i32 %threads.narrow to i64
  %most = mul i64 %threads, 64
  %coarse = mul i64 %most, %least
  %coarse.less = sub i64 %coarse, 1
  %rounded = add i64 %count, %coarse.less
  %multiple = sdiv i64 %rounded, %coarse
  %chunk = mul i64 %multiple, %least
  %chunk.less = sub i64 %chunk, 1
  %up = add i64 %count, %chunk.less
  %chunks = sdiv i64 %up, %chunk
  %function.at = getelementptr i8, ptr %state, i64 192
  store ptr %function, ptr %function.at, align 8
  %args.at = getelementptr i8, ptr %state, i64 200
  store ptr %args, ptr %args.at, align 8
  %count.at = getelementptr i8, ptr %state, i64 208
  store i64 %count, ptr %count.at, align 8
  %grain.at = getelementptr i8, ptr %state, i64 216
  store i64 %chunk, ptr %grain.at, align 8
  %chunks.at = getelementptr i8, ptr %state, i64 224
  store i64 %chunks, ptr %chunks.at, align 8
  %done.at = getelementptr i8, ptr %state, i64 64
  store atomic i64 0, ptr %done.at monotonic, align 8
  %next.at = getelementptr i8, ptr %state, i64 256
  store atomic i64 %chunks, ptr %next.at release, align 8
  %e = atomicrmw add ptr %state, i32 1 seq_cst, align 4
  %sleepers.at = getelementptr i8, ptr %state, i64 128
  %sleepers = load atomic i32, ptr %sleepers.at seq_cst, align 4
  %anyone = icmp sgt i32 %sleepers, 0
  br i1 %anyone, label %wake, label %help
wake:
  %useful = sub i64 %chunks, 1
  %clipped = call i64 @llvm.smin.i64(i64 %useful, i64 4096)
  %number = trunc i64 %clipped to i32
  %r = call i64 (i64, ...) @syscall(
    i64 FUTEX, ptr %state, i32 129, i32 %number, ptr null, ptr null, i32 0)
  br label %help
help:
  call void @work(ptr %state)
  %spin.at = getelementptr i8, ptr %state, i64 332
  %spin = load atomic i32, ptr %spin.at monotonic, align 4
  br label %join
join:
  %turn = phi i32 [0, %help], [%turn.next, %pausing], [%turn, %yielding]
  %done = load atomic i64, ptr %done.at acquire, align 8
  %complete = icmp eq i64 %done, %chunks
  br i1 %complete, label %release, label %linger
linger:
  %more = icmp slt i32 %turn, %spin
  br i1 %more, label %pausing, label %yielding
pausing:
  PAUSE
  %turn.next = add i32 %turn, 1
  br label %join
yielding:
  %y = call i32 @sched_yield()
  br label %join
release:
  store atomic i32 0, ptr %lock.at release, align 4
  br label %return
return:
  ret void
}}

; Says how many threads (besides the caller of a job) work from now on, and lets all of them look.
define void @set_active(ptr %state, i32 %count) nounwind {{
entry:
  %active.at = getelementptr i8, ptr %state, i64 324
  store atomic i32 %count, ptr %active.at seq_cst, align 4
  %e = atomicrmw add ptr %state, i32 1 seq_cst, align 4
  %r1 = call i64 (i64, ...) @syscall(
    i64 FUTEX, ptr %active.at, i32 129, i32 4096, ptr null, ptr null, i32 0)
  %r2 = call i64 (i64, ...) @syscall(
    i64 FUTEX, ptr %state, i32 129, i32 4096, ptr null, ptr null, i32 0)
  ret void
}}

declare i64 @llvm.smax.i64(i64, i64)
declare i64 @llvm.smin.i64(i64, i64)

define void @execute(ptr %plan) nounwind {{
entry:
  %relocation.count = load i64, ptr %plan, align 8
  %relocations.at = getelementptr i64, ptr %plan, i64 1
  %relocations = load ptr, ptr %relocations.at, align 8
  %step.count.at = getelementptr i64, ptr %plan, i64 2
  %step.count = load i64, ptr %step.count.at, align 8
  %steps.at = getelementptr i64, ptr %plan, i64 3
  %steps = load ptr, ptr %steps.at, align 8
  %table.at = getelementptr i64, ptr %plan, i64 4
  %table = load ptr, ptr %table.at, align 8
  %pool.at = getelementptr i64, ptr %plan, i64 5
  %pool = load ptr, ptr %pool.at, align 8
  br label %relocating
relocating:
  %i = phi i64 [0, %entry], [%i.next, %relocate]
  %relocation = phi ptr [%relocations, %entry], [%relocation.next, %relocate]
  %i.more = icmp slt i64 %i, %relocation.count
  br i1 %i.more, label %relocate, label %stepping
relocate:
  %destination = load ptr, ptr %relocation, align 8
  %index.at = getelementptr i64, ptr %relocation, i64 1
  %index = load i64, ptr %index.at, align 8
  %addend.at = getelementptr i64, ptr %relocation, i64 2
  %addend = load i64, ptr %addend.at, align 8
  %entry.at = getelementptr i64, ptr %table, i64 %index
  %start = load i64, ptr %entry.at, align 8
  %address = add i64 %start, %addend
  store i64 %address, ptr %destination, align 8
  %i.next = add i64 %i, 1
  %relocation.next = getelementptr i64, ptr %relocation, i64 3
  br label %relocating
stepping:
  %k = phi i64 [0, %relocating], [%k.next, %step]
  %record = phi ptr [%steps, %relocating], [%record.next, %step]
  %k.more = icmp slt i64 %k, %step.count
  br i1 %k.more, label %step, label %done
step:
  %function = load ptr, ptr %record, align 8
  %args.at = getelementptr i64, ptr %record, i64 1
  %args = load ptr, ptr %args.at, align 8
  %count.at = getelementptr i64, ptr %record, i64 2
  %count = load i64, ptr %count.at, align 8
  %grain.at = getelementptr i64, ptr %record, i64 3
  %grain = load i64, ptr %grain.at, align 8
  call void @parallel_for(ptr %pool, ptr %function, ptr %args, i64 %count, i64 %grain)
  %k.next = add i64 %k, 1
  %record.next = getelementptr i64, ptr %record, i64 4
  br label %stepping
done:
  ret void
}}

; The body of the Python function execute(address): METH_O, self is None.
define ptr @execute_method(ptr %none, ptr %argument) nounwind {{
entry:
  %plan = call ptr @PyLong_AsVoidPtr(ptr %argument)
  %null = icmp eq ptr %plan, null
  br i1 %null, label %nothing, label %run
nothing:
  %error = call ptr @PyErr_Occurred()
  %raised = icmp ne ptr %error, null
  br i1 %raised, label %fail, label %return
fail:
  ret ptr null
run:
  %thread = call ptr @PyEval_SaveThread()
  call void @execute(ptr %plan)
  call void @PyEval_RestoreThread(ptr %thread)
  br label %return
return:
  call void @Py_IncRef(ptr %none)
  ret ptr %none
}}

; Pauses so many times: the pool's spinning time is measured with it.
define void @pause_for(i64 %turns) nounwind {{
entry:
  br label %head
head:
  %i = phi i64 [0, %entry], [%next, %body]
  %more = icmp slt i64 %i, %turns
  br i1 %more, label %body, label %done
body:
  PAUSE
  %next = add i64 %i, 1
  br label %head
done:
  ret void
}}
"""
