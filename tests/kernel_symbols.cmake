# cmake -DNM=<nm> -DISAS=<a;b> -DLIBRARIES=<a;b> -P kernel_symbols.cmake: fails if a kernels_<isa> object defines a function that
# another object may define, too: one whose name has not this very ISA's Ops in it. The linker could keep this one, compiled for
# this ISA, for every caller. Or if it runs something before main.
set(ops_avx2 OpsAvx2)
set(ops_avxvnni OpsAvxVnni)
set(ops_avx512 OpsAvx512)
set(ops_avx512vnni OpsAvx512Vnni)
set(ops_avx512vbmi OpsAvx512Vbmi)
set(ops_neon OpsNeon)
set(ops_i8mm OpsI8mm)

foreach(library IN LISTS LIBRARIES)
  execute_process(COMMAND ${NM} -A --defined-only ${library} OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
  string(PREPEND symbols "\n")
  foreach(isa IN LISTS ISAS)
    set(in_object "\n[^\n]*[/:]kernels_${isa}\\.[^\n]*")
    string(LENGTH "${ops_${isa}}" length)
    set(own "${in_object} [TWi] [^\n]*${length}${ops_${isa}}[^\n]*")   # a mangled name has a class's length before it
    if(NOT symbols MATCHES "${own}")
      message(SEND_ERROR "${library} has no function of ${isa}")
    endif()
    string(REGEX REPLACE "${own}" "" others "${symbols}")
    string(REGEX MATCHALL "${in_object} [TWi] [^\n]*" shared "${others}")
    string(REGEX MATCHALL "${in_object} [^\n]*(_GLOBAL__sub_I|__cxx_global_var_init)[^\n]*" initializers "${symbols}")
    if(shared OR initializers)
      message(SEND_ERROR "compiled for ${isa}, for any machine to run:${shared}${initializers}")
    endif()
  endforeach()
endforeach()
