// Names of Apple's headers, as far as metal-cpp needs them to be looked at by a compiler elsewhere
// (scripts/test-mlx).
#pragma once

#include <cstddef>
#include <cstdint>
typedef struct objc_class* Class;
struct objc_object {
    Class isa;
};
typedef struct objc_object* id;
typedef struct objc_selector* SEL;
typedef void (*IMP)(void);
typedef struct objc_protocol Protocol;
struct objc_method_description {
    SEL name;
    char* types;
};
extern "C" {
void* objc_lookUpClass(const char*);
void* objc_getProtocol(const char*);
SEL sel_registerName(const char*);
objc_method_description protocol_getMethodDescription(Protocol*, SEL, bool, bool);
Class object_getClass(id);
const char* object_getClassName(id);
}
