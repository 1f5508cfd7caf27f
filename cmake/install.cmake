# Header, libraries, command, pkg-config file, and the package that find_package(attn) finds.

include(CMakePackageConfigHelpers)
set(attn_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/attn)

install(DIRECTORY include/attn DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
install(TARGETS attn_shared attn_static EXPORT attn-targets
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
    ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(TARGET attn_tool)
    install(TARGETS attn_tool RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()

install(EXPORT attn-targets NAMESPACE attn:: DESTINATION ${attn_package_dir})
configure_package_config_file(cmake/attn-config.cmake.in attn-config.cmake
    INSTALL_DESTINATION ${attn_package_dir})
write_basic_package_version_file(attn-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES
    ${PROJECT_BINARY_DIR}/attn-config.cmake
    ${PROJECT_BINARY_DIR}/attn-config-version.cmake
    DESTINATION ${attn_package_dir})

# pkg-config: paths are told from where the file lies; --static adds what the archive needs beside itself.
set(attn_private_libs "-lm ${CMAKE_THREAD_LIBS_INIT}")
if(OpenMP_C_FOUND)
    string(APPEND attn_private_libs " ${OpenMP_C_FLAGS}")
endif()
if(ATTN_CUDA AND CMAKE_DL_LIBS) # dlopen, where it is not in the C library itself
    string(APPEND attn_private_libs " -l${CMAKE_DL_LIBS}")
endif()
file(RELATIVE_PATH attn_pc_to_prefix
    ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
configure_file(cmake/attn.pc.in attn.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/attn.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
