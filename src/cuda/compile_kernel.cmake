# Compiles one row of kernels.def: cmake -DOUTPUT= -DNAME= -DOPTIONS= -DCAPABILITY= -DSHARED= -DNVCC= -DSOURCE= -DARGUMENTS= -P this.
# Writes OUTPUT.image, and OUTPUT.txt: name, options, what the assembler said of each target, kind and capability.

get_filename_component(folder ${OUTPUT} DIRECTORY)
file(MAKE_DIRECTORY ${folder})
execute_process(
    COMMAND ${NVCC} -fatbin -std=c++17 -Xptxas -v ${ARGUMENTS} -o ${OUTPUT}.image ${SOURCE}
    RESULT_VARIABLE result OUTPUT_VARIABLE log ERROR_VARIABLE log)
if(NOT result EQUAL 0)
    message(FATAL_ERROR "nvcc could not compile ${NAME}:\n${log}")
endif()

string(REGEX MATCHALL "for 'sm_[0-9a-z]+'|[0-9]+ bytes spill stores|[0-9]+ bytes spill loads|Used [0-9]+ registers"
       facts "${log}")
set(words "")
foreach(fact ${facts})
    string(REGEX MATCH "[0-9]+" number "${fact}")
    if(fact MATCHES "for '(sm_[0-9a-z]+)'")
        string(APPEND words "${CMAKE_MATCH_1}:")
        set(spilled 0)
    elseif(fact MATCHES "spill")
        math(EXPR spilled "${spilled} + ${number}")
    else()
        string(APPEND words " ${number} registers, ${spilled} bytes spilled; ")
    endif()
endforeach()
file(WRITE ${OUTPUT}.txt "${NAME}\n${OPTIONS}\n${words}${SHARED} bytes of shared memory\nATTNI_IMAGE_FAT, ${CAPABILITY}\n")
