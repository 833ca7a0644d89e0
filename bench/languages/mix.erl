%% SPDX-License-Identifier: Apache-2.0
%% Recursion, a ring of processes, sorting.
-module(mix).
-export([main/0]).

fib(N) when N < 2 -> N;
fib(N) -> fib(N - 1) + fib(N - 2).

ring(0, Pid) -> Pid;
ring(N, Pid) -> ring(N - 1, spawn(fun() -> forward(Pid) end)).

forward(Pid) ->
    receive
        M -> Pid ! M, forward(Pid)
    end.

main() ->
    First = ring(100, self()),
    [begin First ! N, receive N -> ok end end || N <- lists:seq(1, 10000)],
    Sorted = lists:sort([X * 7919 rem 1000003 || X <- lists:seq(1, 2000000)]),
    io:format("~p ~p~n", [fib(36), hd(Sorted)]),
    halt().
